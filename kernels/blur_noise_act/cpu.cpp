// One pass over a channels-last map: rows are filtered into a buffer that stays in the first cache, then its columns are
// filtered, and the rest is computed while the result is stored.
#include <cstddef>
#include <stdexcept>

#include <nanobind/ndarray.h>

#include "bias_noise_act/act.hpp"

namespace nb = nanobind;

namespace zellige {
namespace {

constexpr std::int64_t values_a_part = 1 << 16;  // enough to pay for handing a part to a thread
constexpr std::int64_t buffered = 1 << 12;       // float32 values of a row in the buffer
constexpr std::int64_t channels_at_once = 1 << 8;

// A row of the result and the four rows of x that it is made of, null outside of the map.
template <typename T>
struct Row {
    const T *a, *b, *c, *d;
    T *y;
    const float *noise;  // null: none
    std::int64_t columns, channels;  // of the result; x has one column more
};

// Filters pixels [begin, end) of the rows for `some` channels.
template <typename T>
ZELLIGE_INLINE void filter_rows(const T *__restrict a, const T *__restrict b, const T *__restrict c,
                                const T *__restrict d, std::int64_t size, float *__restrict into) {
    for (std::int64_t i = 0; i < size; ++i)
        into[i] = 0.25f * widen(a[i]) + 0.75f * widen(b[i]) + 0.75f * widen(c[i]) + 0.25f * widen(d[i]);
}

template <typename T>
ZELLIGE_INLINE void filter_columns(const float *__restrict from, std::int64_t some, const float *__restrict factor,
                                   float speck, const float *__restrict bias, Act by, T *__restrict y) {
    for (std::int64_t c = 0; c < some; ++c) {
        const float blurred = 0.25f * from[c] + 0.75f * from[some + c] + 0.75f * from[2 * some + c] +
                              0.25f * from[3 * some + c];
        narrow(act(factor[c] * blurred + speck + bias[c], by), y[c]);
    }
}

template <typename T>
ZELLIGE_INLINE void row_body(const Row<T> &row, std::int64_t channel, std::int64_t some, const float *factor,
                             const float *bias, const Noise &noise, Act by) {
    float buffer[buffered];
    const std::int64_t step = buffered / some - 3;
    for (std::int64_t from = 0; from < row.columns; from += step) {
        // Pixel i of the buffer is column from - 1 + i, zero outside of the map.
        const std::int64_t count = std::min(step, row.columns - from), last = from + count + 2;
        const std::int64_t begin = std::max<std::int64_t>(from - 1, 0), end = std::min(last, row.columns + 1);
        if (from == 0) std::fill_n(buffer, some, 0.0f);
        if (last > end) std::fill_n(buffer + (end - from + 1) * some, some, 0.0f);
        float *into = buffer + (begin - from + 1) * some;
        const std::int64_t whole = some == row.channels ? end - begin : 1;  // pixels that lie together
        for (std::int64_t pixel = begin; pixel < end; pixel += whole, into += whole * some) {
            const std::int64_t at = pixel * row.channels + channel;
            filter_rows(row.a + at, row.b + at, row.c + at, row.d + at, whole * some, into);
        }
        for (std::int64_t i = 0; i < count; ++i) {
            // -0 changes no value.
            const float speck = row.noise ? noise.strength * row.noise[from + i] : -0.0f;
            filter_columns(buffer + i * some, some, factor + channel, speck, bias + channel, by,
                           row.y + (from + i) * row.channels + channel);
        }
    }
}

template <typename T>
ZELLIGE_INLINE void row_of_strips(const Row<T> &row, const float *factor, const float *bias, const Noise &noise,
                                  Act by) {
    for (std::int64_t c = 0; c < row.channels; c += channels_at_once)
        row_body(row, c, std::min(channels_at_once, row.channels - c), factor, bias, noise, by);
}

ZELLIGE_CLONES void row_of(const Row<float> &row, const float *factor, const float *bias, const Noise &noise, Act by) {
    row_of_strips(row, factor, bias, noise, by);
}

ZELLIGE_CLONES void row_of(const Row<bfloat16> &row, const float *factor, const float *bias, const Noise &noise,
                           Act by) {
    row_of_strips(row, factor, bias, noise, by);
}

struct Sides {
    std::int64_t samples, rows, columns, channels;  // of the result
};

template <typename T>
void pass(const Sides &size, const T *x, const Factors &factor, const float *bias, const Noise &noise, Act by, T *y) {
    const std::int64_t line = (size.columns + 1) * size.channels;
    const std::vector<T> zeros(static_cast<std::size_t>(line));
    const std::int64_t count = size.samples * size.rows;
    parallel_for(count, long_grain(count, values_a_part / line + 1), [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t k = begin; k < end; ++k) {
            const std::int64_t sample = k / size.rows, r = k % size.rows;
            const auto row = [&](std::int64_t i) {
                return i < 0 || i > size.rows ? zeros.data() : x + (sample * (size.rows + 1) + i) * line;
            };
            const Row<T> here{row(r - 1), row(r), row(r + 1), row(r + 2), y + k * size.columns * size.channels,
                              noise.at(sample, r * size.columns), size.columns, size.channels};
            row_of(here, factor.of(sample), bias, noise, by);
        }
    });
}

using Values = nb::ndarray<nb::ro, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Biases = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Rows = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Result = nb::ndarray<nb::ndim<4>, nb::c_contig, nb::device::cpu>;

// op.py has checked shapes and dtypes. Maps are [N, H, W, C].
void blur_noise_act(const Values &x, const Biases &bias, const Rows &specks, float strength, const Rows &rows,
                    float slope, float gain, float clamp, const Result &y) {
    const auto extent = [&](std::size_t axis) { return static_cast<std::int64_t>(y.shape(axis)); };
    const Sides size{extent(0), extent(1), extent(2), extent(3)};
    const Noise noise = specks.is_valid()
                            ? Noise{specks.data(), specks.shape(0) == 1 ? 0 : size.rows * size.columns, strength}
                            : Noise{nullptr, 0, 0.0f};
    const Factors factor(rows.is_valid() ? rows.data() : nullptr, size.channels);
    const auto run = [&]<typename T>(const T *values) {
        nb::gil_scoped_release unlocked;
        pass(size, values, factor, bias.data(), noise, Act{slope, gain, clamp}, static_cast<T *>(y.data()));
    };
    if (x.dtype() == nb::dtype<float>())
        run(static_cast<const float *>(x.data()));
    else if (x.dtype().code == static_cast<std::uint8_t>(nb::dlpack::dtype_code::Bfloat) && x.dtype().bits == 16)
        run(static_cast<const bfloat16 *>(x.data()));
    else
        throw std::invalid_argument("x must be float32 or bfloat16");
}

}  // namespace

ZELLIGE_BINDINGS(module) {
    using namespace nb::literals;
    module.def("blur_noise_act", &blur_noise_act, "x"_a, "bias"_a, "noise"_a.none(), "strength"_a, "factor"_a.none(),
               "slope"_a, "gain"_a, "clamp"_a, "y"_a.noconvert());
}

}  // namespace zellige
