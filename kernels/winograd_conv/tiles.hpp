// Convolution in tiles of the result: transform the input, multiply, transform back.
//
// A tile of 2x2 pixels reads 4x4 pixels (3x3 of the small map if up-sampling comes first), which become 16 (9) sums.
// Each sum has a matrix of its own, inputs x outputs. A 4x4 kernel of stride 2 is four kernels of 2x2 over the four
// maps of every second pixel, and a transposed one makes four such maps; tiles of 2x2 kernels have up to 3x3 cells and
// read one more a side.
//
// Everything here is inlined into functions of one instruction set, so a file includes it after that set is in force.
// Each file has its own copy (an unnamed namespace): if files shared the code, the linker could give one file code that
// another compiled for instructions that the processor lacks.
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

ZELLIGE_INLINE void forward(const Vector (&d)[3], Vector (&s)[4]) {
    s[0] = d[0] - d[1];
    s[1] = d[1];
    s[2] = d[2] - d[1];
    s[3] = d[2];
}

ZELLIGE_INLINE void forward(const Vector (&d)[2], Vector (&s)[2]) {
    s[0] = d[0];
    s[1] = d[1];
}

// Transforms products along one axis, to neighbours of the result: 2 of a 3-tap kernel, 1 to 3 of a 2-tap kernel.
ZELLIGE_INLINE void back(const Vector (&m)[4], Vector (&y)[2]) {
    y[0] = m[0] + m[1] + m[2];
    y[1] = m[1] - m[2] - m[3];
}

ZELLIGE_INLINE void back(const Vector (&m)[3], Vector (&y)[2]) {
    y[0] = m[0] + m[1];
    y[1] = m[1] + m[2];
}

ZELLIGE_INLINE void back(const Vector (&m)[4], Vector (&y)[3]) {
    y[0] = m[0] + m[1] + m[2];
    y[1] = m[1] - m[2];
    y[2] = m[1] + m[2] - m[3];
}

ZELLIGE_INLINE void back(const Vector (&m)[2], Vector (&y)[1]) { y[0] = m[0] + m[1]; }

// Tiles of four neighbours of a 3-tap kernel. The points of interpolation are 0, 3/4, -3/4, 3/2, -3/2 and infinity,
// because sums lose fewest digits near such points: the error is 0.46 of that at 1 and 2.
constexpr float near = 0.75f, far = 1.5f, near2 = near * near, far2 = far * far;

ZELLIGE_INLINE void forward(const Vector (&d)[6], Vector (&s)[6]) {
    const Vector even_near = d[4] - far2 * d[2], odd_near = near * (d[3] - far2 * d[1]);
    const Vector even_far = d[4] - near2 * d[2], odd_far = far * (d[3] - near2 * d[1]);
    s[0] = near2 * far2 * d[0] - (near2 + far2) * d[2] + d[4];
    s[1] = even_near + odd_near;
    s[2] = even_near - odd_near;
    s[3] = even_far + odd_far;
    s[4] = even_far - odd_far;
    s[5] = near2 * far2 * d[1] - (near2 + far2) * d[3] + d[5];
}

ZELLIGE_INLINE void back(const Vector (&m)[6], Vector (&y)[4]) {
    const Vector even_near = m[1] + m[2], odd_near = near * (m[1] - m[2]);
    const Vector even_far = m[3] + m[4], odd_far = far * (m[3] - m[4]);
    y[0] = m[0] + even_near + even_far;
    y[1] = odd_near + odd_far;
    y[2] = near2 * even_near + far2 * even_far;
    y[3] = near2 * odd_near + far2 * odd_far + m[5];
}

// The same for pixels that have two taps and one in turns.
ZELLIGE_INLINE void back_in_turns(const Vector (&m)[3], Vector (&y)[2]) {
    y[0] = m[0] + m[1];
    y[1] = m[2];
}

ZELLIGE_INLINE void back_in_turns(const Vector (&m)[5], Vector (&y)[4]) {
    y[0] = m[0] + m[1];
    y[1] = m[3];
    y[2] = m[1] + m[2];
    y[3] = m[4];
}

// A convolution as a constant: its kind, and the cells a side that a tile makes.
template <Kind which, int cells>
struct Form {
    static constexpr Kind kind = which;
    static constexpr bool in_turns = which == Kind::spread;
    static constexpr int made = cells;
    static constexpr int out = in_turns ? 2 * cells : cells;                // pixels a side that a tile makes
    static constexpr int side = cells + (which == Kind::same ? 2 : 1);      // cells a side that a tile reads
    static constexpr int sums = in_turns ? 2 * cells : side;                // a side that they are transformed to
    static constexpr int products = in_turns ? 1 + 2 * cells : side;        // a side
    static constexpr int matrices = in_turns ? 2 + cells : side;            // a side
    static constexpr int step = which == Kind::upsampled ? 1 : cells;       // cells from one tile to the next
    static constexpr int groups = which == Kind::halved ? 4 : 1;            // of inputs
    static constexpr int apart = which == Kind::halved ? 2 : 1;             // pixels from a cell to its neighbour

    // The sum and the matrix of a product along one axis. In turns, the last products are the single taps of cells; they
    // share sums with the pairs of taps, and a matrix.
    static constexpr int sum_of(int k) { return !in_turns ? k : cells == 1 ? (k + 1) / 2 : k == 3 ? 1 : k == 4 ? 3 : k; }
    static constexpr int matrix_of(int k) { return in_turns && cells == 2 && k == 4 ? 3 : k; }

    ZELLIGE_INLINE void back(const Vector (&m)[products], Vector (&y)[out]) {
        if constexpr (in_turns)
            winograd::back_in_turns(m, y);
        else
            winograd::back(m, y);
    }
};

// Calls work with the form as a constant.
template <typename Work>
ZELLIGE_INLINE void by_form(const Shape &shape, const Work &work) {
    switch (shape.kind) {
        case Kind::same:
            if (shape.made == 4) return work(Form<Kind::same, 4>{});
            return work(Form<Kind::same, 2>{});
        case Kind::upsampled: return work(Form<Kind::upsampled, 2>{});
        case Kind::halved:
            if (shape.made == 1) return work(Form<Kind::halved, 1>{});
            if (shape.made == 2) return work(Form<Kind::halved, 2>{});
            return work(Form<Kind::halved, 3>{});
        case Kind::doubled:
            if (shape.made == 1) return work(Form<Kind::doubled, 1>{});
            if (shape.made == 2) return work(Form<Kind::doubled, 2>{});
            return work(Form<Kind::doubled, 3>{});
        case Kind::spread:
            if (shape.made == 1) return work(Form<Kind::spread, 1>{});
            return work(Form<Kind::spread, 2>{});
    }
}

// Writes the sums of tiles `begin` to `end`: sum t of tile k goes to v[t plane + (k - begin) stored].
template <typename Storage, typename Form, typename T>
ZELLIGE_INLINE void transform_body(const Shape &shape, const T *const *x, std::int64_t begin, std::int64_t end,
                                   std::int64_t plane, const T *zeros, T *v) {
    constexpr int side = Form::side, made = Form::sums;
    const std::int64_t stored = shape.stored(), all = shape.inputs(), first = shape.first / (Form::kind == Kind::upsampled ? 2 : 1);
    Place place(shape, begin);
    for (std::int64_t tile = begin; tile < end; ++tile, place.next(shape)) {
        T *into = v + (tile - begin) * stored;
        const float *style = shape.style ? shape.style + place.sample * all : nullptr;
        for (int group = 0; group < Form::groups; ++group) {
            std::int64_t at[side][side];  // a pixel, or -1 for one of the padding
            for (int i = 0; i < side; ++i) {
                std::int64_t row = (first + place.row * Form::step + i) * Form::apart + group / 2 - 1;
                if (shape.replicate) row = std::clamp<std::int64_t>(row, 0, shape.rows - 1);
                for (int j = 0; j < side; ++j) {
                    std::int64_t column = (first + place.column * Form::step + j) * Form::apart + group % 2 - 1;
                    if (shape.replicate) column = std::clamp<std::int64_t>(column, 0, shape.columns - 1);
                    const bool inside = row >= 0 && row < shape.rows && column >= 0 && column < shape.columns;
                    at[i][j] = inside ? (place.sample * shape.rows + row) * shape.columns + column : -1;
                }
            }
            for (int source = 0; source < shape.sources; ++source) {
                const std::int64_t inputs = shape.from_source[source];
                const T *pixels[side][side];
                for (int i = 0; i < side; ++i)
                    for (int j = 0; j < side; ++j)
                        pixels[i][j] = at[i][j] < 0 ? zeros : x[source] + at[i][j] * inputs;
                for (std::int64_t c = 0; c < inputs; c += lanes, into += lanes) {
                    Vector found[made][side];  // down the columns
                    for (int j = 0; j < side; ++j) {
                        Vector d[side], s[made];
                        for (int i = 0; i < side; ++i) d[i] = read<Storage>(pixels[i][j] + c, inputs - c);
                        if (style != nullptr) {
                            const Vector factor = read<Wide>(style + c, inputs - c);
                            for (int i = 0; i < side; ++i) d[i] *= factor;
                        }
                        forward(d, s);
                        for (int i = 0; i < made; ++i) found[i][j] = s[i];
                    }
                    for (int i = 0; i < made; ++i) {
                        Vector s[made];
                        forward(found[i], s);
                        for (int j = 0; j < made; ++j) Storage::store(s[j], into + (i * made + j) * plane);
                    }
                }
                if (style != nullptr) style += inputs;
            }
        }
    }
}

// Completes a vector of a pixel's channels, of which `size` are left.
ZELLIGE_INLINE Vector finished(Vector sum, const Epilogue &last, std::int64_t factors, float speck, std::int64_t biases,
                               std::int64_t size) {
    if (last.factor != nullptr) sum *= read<Wide>(last.factor + factors, size);
    if (last.noise != nullptr) sum += speck;
    if (last.bias != nullptr) sum += read<Wide>(last.bias + biases, size);
    if (last.plain()) return sum;
    sum = last.gain * (sum > 0 ? sum : sum * last.slope);
    const Vector below = sum > last.clamp ? last.clamp + Vector{} : sum;
    return below < -last.clamp ? -last.clamp + Vector{} : below;
}

// Writes the results of `count` tiles in one or more blocks of channels, which follow each other from `channel` on.
//   v: the tiles' sums, `plane` numbers apart. Rows behind them, up to a multiple of `tall`, are read but not used.
//   u: matrices of the blocks, [blocks, products, stored, block] (bfloat16: [blocks, products, stored / 2, block, 2]).
//   m: room for products, [blocks, products, most x block + gap].
template <typename Storage, typename Form, typename T>
ZELLIGE_INLINE void multiply_body(const Shape &shape, const T *v, const Target *targets, std::int64_t count,
                                  std::int64_t plane, const T *u, std::int64_t channel, std::int64_t blocks,
                                  const Epilogue &last, float *m, T *y) {
    constexpr int side = Form::products, made = Form::out, cells = made * made;
    const std::int64_t stored = shape.stored(), left = std::min(blocks * block, shape.outputs - channel);
    const std::int64_t product = most * block + gap;
    // The last product of a run is made for as many tiles as the others, or for two thirds or a third as many.
    constexpr int whole = Storage::most_rows, third = whole / 3;
    constexpr int matrices = Form::matrices * Form::matrices;
    for (int t = 0; t < side * side; ++t) {
        const int sum = Form::sum_of(t / side) * Form::sums + Form::sum_of(t % side);
        const int which = Form::matrix_of(t / side) * Form::matrices + Form::matrix_of(t % side);
        for (std::int64_t k = 0; k < count; k += whole) {
            const T *rows = v + sum * plane + k * stored;
            for (std::int64_t b = 0; b < blocks; ++b) {
                const T *matrix = u + (b * matrices + which) * stored * block;
                float *into = m + (b * side * side + t) * product + k * block;
                if (count - k > 2 * third)
                    Storage::template product<whole>(rows, stored, matrix, into);
                else if (count - k > third)
                    Storage::template product<2 * third>(rows, stored, matrix, into);
                else
                    Storage::template product<third>(rows, stored, matrix, into);
            }
        }
        // The lines of the result are fetched here, because the products leave memory idle.
        for (std::int64_t k = t * count / (side * side); k < (t + 1) * count / (side * side); ++k)
            for (int i = 0; i < cells; ++i)
                if (targets[k].pixels[i] >= 0) ask_to_write(y + targets[k].pixels[i] * shape.outputs + channel, left);
    }
    for (std::int64_t k = 0; k < count; ++k) {
        const Target &target = targets[k];
        for (std::int64_t c = 0; c < left; c += lanes) {
            const float *from = m + c / block * side * side * product + k * block + c % block;
            Vector half[made][side];  // down the columns
            for (int j = 0; j < side; ++j) {
                Vector column[side], found[made];
                for (int i = 0; i < side; ++i) column[i] = Wide::load(from + (i * side + j) * product);
                Form::back(column, found);
                for (int i = 0; i < made; ++i) half[i][j] = found[i];
            }
            for (int i = 0; i < made; ++i) {
                Vector found[made];
                Form::back(half[i], found);
                for (int j = 0; j < made; ++j) {
                    const std::int64_t cell = i * made + j, pixel = target.pixels[cell], at = channel + c;
                    if (pixel < 0) continue;
                    const float speck = last.noise ? last.strength * last.noise[target.specks[cell]] : 0.0f;
                    const Vector value = finished(found[j], last, target.sample * shape.outputs + at, speck,
                                                  target.places[cell] * shape.outputs + at, left - c);
                    write<Storage>(value, y + pixel * shape.outputs + at, left - c);
                }
            }
        }
    }
}

}  // namespace
}  // namespace zellige::winograd
