// Convolution in tiles of 2x2 pixels of the result: transform the input, multiply, transform back.
//
// A tile reads 4x4 pixels (3x3 of the small map if up-sampling comes first), which become 16 (9) sums. Each sum has a
// matrix of its own, inputs x outputs. Everything here is inlined into functions of one instruction set, so a file
// includes it after that set is in force. Each file has its own copy (an unnamed namespace): if files shared the code,
// the linker could give one file code that another compiled for instructions that the processor lacks.
#pragma once

#include "winograd_conv/shape.hpp"

namespace zellige::winograd {
namespace {

// Numbers between planes. Without them, numbers that are read together would fall into the same few sets of a cache.
constexpr std::int64_t gap = 16;

using Vector [[gnu::vector_size(64), gnu::aligned(4)]] = float;

// A run of tiles in the order sample, row, column.
struct Place {
    std::int64_t sample, row, column;

    Place(const Shape &shape, std::int64_t tile)
        : sample(tile / (shape.tile_rows * shape.tile_columns)),
          row(tile / shape.tile_columns % shape.tile_rows),
          column(tile % shape.tile_columns) {}

    void next(const Shape &shape) {
        if (++column < shape.tile_columns) return;
        column = 0;
        if (++row < shape.tile_rows) return;
        row = 0;
        ++sample;
    }
};

template <typename Storage, typename T>
ZELLIGE_INLINE Vector read(const T *from, std::int64_t size) {
    if (size >= lanes) return Storage::load(from);
    T room[lanes] = {};
    for (std::int64_t i = 0; i < size; ++i) room[i] = from[i];
    return Storage::load(room);
}

template <typename Storage, typename T>
ZELLIGE_INLINE void write(Vector value, T *into, std::int64_t size) {
    if (size >= lanes) return Storage::store(value, into);
    T room[lanes];
    Storage::store(value, room);
    for (std::int64_t i = 0; i < size; ++i) into[i] = room[i];
}

// Products with accumulators of up to `rows` by `vectors` vectors.
template <int rows, int vectors>
struct Float {
    static constexpr int most_rows = rows;

    ZELLIGE_INLINE Vector load(const float *from) { return *reinterpret_cast<const Vector *>(from); }
    ZELLIGE_INLINE void store(Vector value, float *into) { *reinterpret_cast<Vector *>(into) = value; }

    // [count, stored] times [stored, block].
    template <int count>
    ZELLIGE_INLINE void product(const float *a, std::int64_t stored, const float *b, float *c) {
        for (std::int64_t from = 0; from < block; from += vectors * lanes) {
            Vector sums[count][vectors] = {};
            for (std::int64_t k = 0; k < stored; ++k) {
                Vector row[vectors];
                for (int j = 0; j < vectors; ++j) row[j] = load(b + k * block + from + j * lanes);
                for (int i = 0; i < count; ++i)
                    for (int j = 0; j < vectors; ++j) sums[i][j] += a[i * stored + k] * row[j];
            }
            for (int i = 0; i < count; ++i)
                for (int j = 0; j < vectors; ++j) store(sums[i][j], c + i * block + from + j * lanes);
        }
    }
};

using Wide = Float<tall, 2>;  // 24 accumulators of 64 bytes, of 32 registers

// Transforms the input along one axis: 4 values to 4 sums, or 3 of the small map to 3.
ZELLIGE_INLINE void forward(const Vector (&d)[4], Vector (&s)[4]) {
    s[0] = d[0] - d[2];
    s[1] = d[1] + d[2];
    s[2] = d[2] - d[1];
    s[3] = d[1] - d[3];
}

ZELLIGE_INLINE void forward(const Vector (&d)[3], Vector (&s)[3]) {
    s[0] = d[0] - d[1];
    s[1] = d[1];
    s[2] = d[2] - d[1];
}

// Transforms products along one axis, to 2 neighbours of the result.
ZELLIGE_INLINE void back(const Vector (&m)[4], Vector &first, Vector &second) {
    first = m[0] + m[1] + m[2];
    second = m[1] - m[2] - m[3];
}

ZELLIGE_INLINE void back(const Vector (&m)[3], Vector &first, Vector &second) {
    first = m[0] + m[1];
    second = m[1] + m[2];
}

// Writes the sums of tiles `begin` to `end`: sum t of tile k goes to v[t plane + (k - begin) stored].
template <typename Storage, int side, typename T>
ZELLIGE_INLINE void transform_body(const Shape &shape, const T *x, std::int64_t begin, std::int64_t end,
                                   std::int64_t plane, const T *zeros, T *v) {
    const std::int64_t stored = shape.stored(), step = side == 3 ? 1 : 2, first = shape.first / (side == 3 ? 2 : 1);
    Place place(shape, begin);
    for (std::int64_t tile = begin; tile < end; ++tile, place.next(shape)) {
        const T *pixels[side][side];
        for (int i = 0; i < side; ++i) {
            std::int64_t row = first + place.row * step + i - 1;
            if (shape.replicate) row = std::clamp<std::int64_t>(row, 0, shape.rows - 1);
            for (int j = 0; j < side; ++j) {
                std::int64_t column = first + place.column * step + j - 1;
                if (shape.replicate) column = std::clamp<std::int64_t>(column, 0, shape.columns - 1);
                const bool inside = row >= 0 && row < shape.rows && column >= 0 && column < shape.columns;
                const std::int64_t at = (place.sample * shape.rows + row) * shape.columns + column;
                pixels[i][j] = inside ? x + at * shape.inputs : zeros;
            }
        }
        T *into = v + (tile - begin) * stored;
        for (std::int64_t c = 0; c < stored; c += lanes) {
            Vector sums[side][side];  // down the columns
            for (int j = 0; j < side; ++j) {
                Vector d[side], s[side];
                for (int i = 0; i < side; ++i) d[i] = read<Storage>(pixels[i][j] + c, shape.inputs - c);
                forward(d, s);
                for (int i = 0; i < side; ++i) sums[i][j] = s[i];
            }
            for (int i = 0; i < side; ++i) {
                Vector s[side];
                forward(sums[i], s);
                for (int j = 0; j < side; ++j) Storage::store(s[j], into + (i * side + j) * plane + c);
            }
        }
    }
}

// Writes the results of `count` tiles in one block of channels.
//   v: the tiles' sums, `plane` numbers apart. Rows behind them, up to a multiple of `tall`, are read but not used.
//   u: matrices of the block, [products, stored, block] (bfloat16: [products, stored / 2, block, 2]).
//   m: room for products, [products, most x block + gap].
template <typename Storage, int side, typename T>
ZELLIGE_INLINE void multiply_body(const Shape &shape, const T *v, const Target *targets, std::int64_t count,
                                  std::int64_t plane, const T *u, std::int64_t channel, const float *bias, float *m,
                                  T *y) {
    const std::int64_t stored = shape.stored(), left = std::min(block, shape.outputs - channel);
    const std::int64_t product = most * block + gap;
    // The last product of a run is made for as many tiles as the others, or for two thirds or a third as many.
    constexpr int whole = Storage::most_rows, third = whole / 3;
    for (int t = 0; t < side * side; ++t) {
        const T *matrix = u + t * stored * block;
        for (std::int64_t k = 0; k < count; k += whole) {
            const T *rows = v + t * plane + k * stored;
            float *into = m + t * product + k * block;
            if (count - k > 2 * third)
                Storage::template product<whole>(rows, stored, matrix, into);
            else if (count - k > third)
                Storage::template product<2 * third>(rows, stored, matrix, into);
            else
                Storage::template product<third>(rows, stored, matrix, into);
        }
        // The lines of the result are fetched here, because the products leave memory idle.
        for (std::int64_t k = t * count / (side * side); k < (t + 1) * count / (side * side); ++k)
            for (const std::int64_t pixel : targets[k].pixels)
                if (pixel >= 0) ask_to_write(y + pixel * shape.outputs + channel, left);
    }
    for (std::int64_t k = 0; k < count; ++k) {
        const Target &target = targets[k];
        for (std::int64_t c = 0; c < left; c += lanes) {
            const float *from = m + k * block + c;
            Vector half[2][side], found[4];
            for (int j = 0; j < side; ++j) {
                Vector column[side];
                for (int i = 0; i < side; ++i) column[i] = Wide::load(from + (i * side + j) * product);
                back(column, half[0][j], half[1][j]);
            }
            for (int i = 0; i < 2; ++i) back(half[i], found[2 * i], found[2 * i + 1]);
            if (bias != nullptr)
                for (int i = 0; i < 4; ++i)
                    found[i] += read<Wide>(bias + target.places[i] * shape.outputs + channel + c, left - c);
            for (int i = 0; i < 4; ++i)
                if (target.pixels[i] >= 0)
                    write<Storage>(found[i], y + target.pixels[i] * shape.outputs + channel + c, left - c);
        }
    }
}

}  // namespace
}  // namespace zellige::winograd
