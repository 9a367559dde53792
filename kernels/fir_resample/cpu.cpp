// One pass over the map: rows are filtered into a buffer that stays in the first cache, then its columns are filtered.
#include <cstddef>
#include <stdexcept>

#include <nanobind/ndarray.h>

#include "cpu/native.hpp"

namespace nb = nanobind;

namespace zellige {
namespace {

constexpr std::int64_t values_a_part = 1 << 15;  // enough to pay for handing a part to a thread
constexpr std::int64_t buffered = 1 << 12;       // float32 values of a row in the buffer
constexpr std::int64_t channels_at_once = 1 << 9;

// A row outside of the map is null, and its values are 0.
template <typename T> ZELLIGE_INLINE float at(const T *row, std::int64_t i) { return row ? widen(row[i]) : 0.0f; }

// A row of the result, which lies between two rows of x, before its columns are filtered.
template <typename T> struct Doubling {
    const T *far, *near;

    ZELLIGE_INLINE float value(const Doubling &rows, std::int64_t i) {
        return 0.25f * at(rows.far, i) + 0.75f * widen(rows.near[i]);
    }
};

template <typename T> struct Halving {
    const T *a, *b, *c, *d;

    ZELLIGE_INLINE float value(const Halving &rows, std::int64_t i) {
        return 0.125f * at(rows.a, i) + 0.375f * widen(rows.b[i]) + 0.375f * widen(rows.c[i]) + 0.125f * at(rows.d, i);
    }
};

// Computes pixels [first, last) of the filtered rows, zero outside of the map, for channels [channel, channel + some).
template <typename Rows>
ZELLIGE_INLINE void filter_rows(const Rows &rows, std::int64_t first, std::int64_t last, std::int64_t columns,
                                std::int64_t channels, std::int64_t channel, std::int64_t some,
                                float *__restrict into) {
    if (first < 0) std::fill_n(into, some, 0.0f);
    if (last > columns) std::fill_n(into + (columns - first) * some, some, 0.0f);
    const std::int64_t begin = std::max<std::int64_t>(first, 0), end = std::min(last, columns);
    into += (begin - first) * some;
    if (some == channels) {
        for (std::int64_t i = 0; i < (end - begin) * channels; ++i) into[i] = Rows::value(rows, begin * channels + i);
        return;
    }
    for (std::int64_t pixel = begin; pixel < end; ++pixel, into += some)
        for (std::int64_t c = 0; c < some; ++c) into[c] = Rows::value(rows, pixel * channels + channel + c);
}

// Computes one row of the doubled map. `some` is a constant 1 for planes that are stored one by one.
template <typename T>
ZELLIGE_INLINE void double_body(const Doubling<T> &rows, std::int64_t columns, std::int64_t channels,
                                std::int64_t channel, std::int64_t some, float scale, T *__restrict y) {
    float buffer[buffered];
    const std::int64_t step = buffered / some - 2;
    for (std::int64_t from = 0; from < columns; from += step) {
        const std::int64_t count = std::min(step, columns - from);
        filter_rows(rows, from - 1, from + count + 1, columns, channels, channel, some, buffer);
        for (std::int64_t i = 0; i < count; ++i) {
            const float *__restrict left = buffer + i * some;
            T *__restrict into = y + 2 * (from + i) * channels + channel;
            for (std::int64_t c = 0; c < some; ++c) {
                const float middle = 0.75f * left[some + c];
                narrow(scale * (0.25f * left[c] + middle), into[c]);
                narrow(scale * (middle + 0.25f * left[2 * some + c]), into[channels + c]);
            }
        }
    }
}

// Computes one row of the halved map. `columns` are those of x.
template <typename T>
ZELLIGE_INLINE void halve_body(const Halving<T> &rows, std::int64_t columns, std::int64_t channels,
                               std::int64_t channel, std::int64_t some, float scale, T *__restrict y) {
    float buffer[buffered];
    const std::int64_t step = (buffered / some - 2) / 2;
    for (std::int64_t from = 0; from < columns / 2; from += step) {
        const std::int64_t count = std::min(step, columns / 2 - from);
        filter_rows(rows, 2 * from - 1, 2 * (from + count) + 1, columns, channels, channel, some, buffer);
        for (std::int64_t i = 0; i < count; ++i) {
            const float *__restrict a = buffer + 2 * i * some;
            T *__restrict into = y + (from + i) * channels + channel;
            for (std::int64_t c = 0; c < some; ++c)
                narrow(scale * (0.125f * a[c] + 0.375f * a[some + c] + 0.375f * a[2 * some + c] +
                                0.125f * a[3 * some + c]),
                       into[c]);
        }
    }
}

template <typename T>
ZELLIGE_INLINE void row_body(const Doubling<T> &rows, std::int64_t columns, std::int64_t channels, float scale, T *y) {
    if (channels == 1) return double_body(rows, columns, 1, 0, 1, scale, y);
    for (std::int64_t c = 0; c < channels; c += channels_at_once)
        double_body(rows, columns, channels, c, std::min(channels_at_once, channels - c), scale, y);
}

template <typename T>
ZELLIGE_INLINE void row_body(const Halving<T> &rows, std::int64_t columns, std::int64_t channels, float scale, T *y) {
    if (channels == 1) return halve_body(rows, columns, 1, 0, 1, scale, y);
    for (std::int64_t c = 0; c < channels; c += channels_at_once)
        halve_body(rows, columns, channels, c, std::min(channels_at_once, channels - c), scale, y);
}

ZELLIGE_CLONES void row(const Doubling<float> &rows, std::int64_t columns, std::int64_t channels, float scale,
                        float *y) {
    row_body(rows, columns, channels, scale, y);
}

ZELLIGE_CLONES void row(const Doubling<bfloat16> &rows, std::int64_t columns, std::int64_t channels, float scale,
                        bfloat16 *y) {
    row_body(rows, columns, channels, scale, y);
}

ZELLIGE_CLONES void row(const Halving<float> &rows, std::int64_t columns, std::int64_t channels, float scale,
                        float *y) {
    row_body(rows, columns, channels, scale, y);
}

ZELLIGE_CLONES void row(const Halving<bfloat16> &rows, std::int64_t columns, std::int64_t channels, float scale,
                        bfloat16 *y) {
    row_body(rows, columns, channels, scale, y);
}

// An NCHW map is taken as channels-last maps of one channel each, its planes.
struct Map {
    std::int64_t maps, rows, columns, channels;
};

template <typename T> void resample(const Map &size, const T *x, bool up, float scale, T *y) {
    const std::int64_t from = size.columns * size.channels, into = up ? 2 * from : from / 2;
    const std::int64_t rows = up ? 2 * size.rows : size.rows / 2;
    parallel_for(size.maps * rows, values_a_part / std::max(from, into) + 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t k = begin; k < end; ++k) {
            const T *map = x + k / rows * size.rows * from;
            const auto line = [&](std::int64_t r) { return r < 0 || r >= size.rows ? nullptr : map + r * from; };
            const std::int64_t r = k % rows;
            if (up)
                row(Doubling<T>{line(r % 2 ? r / 2 + 1 : r / 2 - 1), line(r / 2)}, size.columns, size.channels, scale,
                    y + k * into);
            else
                row(Halving<T>{line(2 * r - 1), line(2 * r), line(2 * r + 1), line(2 * r + 2)}, size.columns,
                    size.channels, scale, y + k * into);
        }
    });
}

using Values = nb::ndarray<nb::ro, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Result = nb::ndarray<nb::ndim<4>, nb::c_contig, nb::device::cpu>;

// op.py has checked shapes and dtypes. Maps come in the order of their memory: [N, H, W, C] if channels-last.
void fir_resample(const Values &x, const Result &y, bool up, float scale, bool channels_last) {
    const auto extent = [&](std::size_t axis) { return static_cast<std::int64_t>(x.shape(axis)); };
    const Map size = channels_last ? Map{extent(0), extent(1), extent(2), extent(3)}
                                   : Map{extent(0) * extent(1), extent(2), extent(3), 1};
    const auto run = [&]<typename T>(const T *values) {
        nb::gil_scoped_release unlocked;
        resample(size, values, up, scale, static_cast<T *>(y.data()));
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
    module.def("fir_resample", &fir_resample, "x"_a, "y"_a.noconvert(), "up"_a, "scale"_a, "channels_last"_a);
}

}  // namespace zellige
