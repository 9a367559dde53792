// The shape of a convolution in tiles, and the declarations of its bfloat16 form.
#pragma once

#include "cpu/native.hpp"

namespace zellige::winograd {

constexpr std::int64_t lanes = 16;  // channels that are transformed together
constexpr std::int64_t block = 32;  // channels of the result that are made together
constexpr std::int64_t most = 48;   // tiles at most for which a block of channels is made at once
constexpr std::int64_t tall = 12;   // tiles for which one product is made
constexpr std::int64_t paired = 2;  // blocks at most that are made together, so that sums come from afar half as often
static_assert(most % tall == 0);

// What is convolved: 3x3 over the map; 3x3 over the map doubled by nearest; 4x4 of stride 2; 4x4 transposed, of
// stride 2; 3x3 transposed, of stride 2 and without padding.
enum class Kind { same, upsampled, halved, doubled, spread };

constexpr int most_out = 4;      // pixels a side that a tile makes
constexpr int most_sources = 4;  // maps that are joined along channels

// What becomes of the sums before they are stored: y = gain lrelu(factor[n,k] sum + strength noise[n,p] + bias), limited
// to [-clamp, clamp].
struct Epilogue {
    const float *factor, *noise, *bias;  // null: none
    std::int64_t noise_stride;           // from one sample to the next; 0 if they share the noise
    float strength, slope, gain, clamp;
    bool border;                         // one bias for each of nine places

    bool plain() const { return slope == 1 && gain == 1 && clamp == std::numeric_limits<float>::infinity(); }
};

struct Shape {
    Kind kind;
    int made;                                     // cells a side that a tile makes
    int sources;                                  // maps that are joined along channels
    std::int64_t from_source[most_sources];       // channels of each; all but the last fill their lanes
    std::int64_t rows, columns, outputs;
    std::int64_t crop;                            // pixels cut off every side of the result
    std::int64_t first, tile_rows, tile_columns;  // tiles start at pixel `first` of both axes, before the crop
    bool replicate;
    const float *style;                           // factors of the inputs of every sample; null: none

    // Groups of inputs: the four pixels of a cell, each with its channels, if the sides are halved.
    std::int64_t groups() const { return kind == Kind::halved ? 4 : 1; }
    // Groups of outputs, the four pixels that a cell becomes, if the sides are doubled.
    std::int64_t phases() const { return kind == Kind::doubled ? 4 : 1; }
    std::int64_t inputs() const {
        std::int64_t sum = 0;
        for (int s = 0; s < sources; ++s) sum += from_source[s];
        return sum;
    }
    std::int64_t in_group() const {
        std::int64_t sum = 0;
        for (int s = 0; s < sources; ++s) sum += (from_source[s] + lanes - 1) / lanes * lanes;
        return sum;
    }
    std::int64_t stored() const { return groups() * in_group(); }
    // Pixels a side that a tile makes; sums a side that it reads, products that these make, and their matrices.
    int out() const { return kind == Kind::spread ? 2 * made : made; }
    std::int64_t planes() const { return square(kind == Kind::spread ? 2 * made : side()); }
    std::int64_t products() const { return square(kind == Kind::spread ? 1 + 2 * made : side()); }
    std::int64_t matrices() const { return square(kind == Kind::spread ? 2 + made : side()); }
    // Sides of the result, before the crop.
    std::int64_t whole(std::int64_t side) const {
        if (kind == Kind::spread) return 2 * side + 1;
        return kind == Kind::halved ? side / 2 : kind == Kind::same ? side : 2 * side;
    }

  private:
    std::int64_t side() const { return made + (kind == Kind::same ? 2 : 1); }
    static std::int64_t square(std::int64_t side) { return side * side; }
};

// The places of a tile's pixels in the result, -1 for those that are cut off, and in the noise, and the rows of their
// biases.
struct Target {
    std::int64_t sample, pixels[most_out * most_out], specks[most_out * most_out], places[most_out * most_out];
};

// Whether the processor multiplies pairs of bfloat16 and adds them to float32. The functions below need it.
bool has_dot();

void transform_dot(const Shape &shape, const bfloat16 *const *x, std::int64_t begin, std::int64_t end,
                   std::int64_t plane, const bfloat16 *zeros, bfloat16 *v);

void multiply_dot(const Shape &shape, const bfloat16 *v, const Target *targets, std::int64_t count, std::int64_t plane,
                  const bfloat16 *u, std::int64_t channel, std::int64_t blocks, const Epilogue &last, float *m,
                  bfloat16 *y);

}  // namespace zellige::winograd
