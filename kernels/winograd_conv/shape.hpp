// The shape of a convolution in tiles, and the declarations of its bfloat16 form.
#pragma once

#include "cpu/native.hpp"

namespace zellige::winograd {

constexpr std::int64_t lanes = 16;  // channels that are transformed together
constexpr std::int64_t block = 32;  // channels of the result that are made together
constexpr std::int64_t most = 48;   // tiles at most for which a block of channels is made at once
constexpr std::int64_t tall = 12;   // tiles for which one product is made
static_assert(most % tall == 0);

struct Shape {
    std::int64_t rows, columns, inputs, outputs;
    std::int64_t crop;                            // pixels cut off every side of the result
    std::int64_t first, tile_rows, tile_columns;  // tiles start at pixel `first` of both axes, before the crop
    bool upsample, replicate, border;             // border: one bias for each of nine places

    std::int64_t stored() const { return (inputs + lanes - 1) / lanes * lanes; }
    std::int64_t products() const { return upsample ? 9 : 16; }
    std::int64_t whole(std::int64_t side) const { return upsample ? 2 * side : side; }
};

// The places of a tile's four pixels in the result, -1 for those that are cut off, and the rows of their biases.
struct Target {
    std::int64_t pixels[4], places[4];
};

// Whether the processor multiplies pairs of bfloat16 and adds them to float32. The functions below need it.
bool has_dot();

void transform_dot(const Shape &shape, const bfloat16 *x, std::int64_t begin, std::int64_t end, std::int64_t plane,
                   const bfloat16 *zeros, bfloat16 *v);

void multiply_dot(const Shape &shape, const bfloat16 *v, const Target *targets, std::int64_t count, std::int64_t plane,
                  const bfloat16 *u, std::int64_t channel, const float *bias, float *m, bfloat16 *y);

}  // namespace zellige::winograd
