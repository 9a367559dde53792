// One pass over the map: planes with one scale each (NCHW), or pixels with a row of scales (channels-last).
#include <cstddef>
#include <stdexcept>
#include <vector>

#include <nanobind/ndarray.h>

#include "affine_relu/affine.hpp"

namespace nb = nanobind;

namespace zellige {
namespace {

constexpr std::int64_t values_a_part = 1 << 15;  // enough to pay for handing a part to a thread

// Computes values of one channel. Each is stored twice if the map is doubled.
ZELLIGE_INLINE void plane_row_body(const float *__restrict x, std::int64_t size, float scale, float shift, bool twice,
                                   float *__restrict y) {
    if (twice) {
        for (std::int64_t i = 0; i < size; ++i) {
            const float value = affine(x[i], scale, shift);
            y[2 * i] = value;
            y[2 * i + 1] = value;
        }
    } else {
        for (std::int64_t i = 0; i < size; ++i) y[i] = affine(x[i], scale, shift);
    }
}

ZELLIGE_INLINE void plane_row_body(const bfloat16 *__restrict x, std::int64_t size, float scale, float shift,
                                   bool twice, bfloat16 *__restrict y) {
    if (twice) {
        for (std::int64_t i = 0; i < size; ++i) {
            const float value = affine(widen(x[i]), scale, shift);
            narrow_pair(value, value, y + 2 * i);
        }
        return;
    }
    const std::int64_t even = size - size % 2;
    for (std::int64_t i = 0; i < even; i += 2) {
        const Pair pair = widen_pair(x + i);
        narrow_pair(affine(pair.first, scale, shift), affine(pair.second, scale, shift), y + i);
    }
    if (even < size) narrow(affine(widen(x[even]), scale, shift), y[even]);
}

ZELLIGE_CLONES void plane_row(const float *x, std::int64_t size, float scale, float shift, bool twice, float *y) {
    plane_row_body(x, size, scale, shift, twice, y);
}

ZELLIGE_CLONES void plane_row(const bfloat16 *x, std::int64_t size, float scale, float shift, bool twice, bfloat16 *y) {
    plane_row_body(x, size, scale, shift, twice, y);
}

// Computes `pixels` pixels of all channels. Each pixel is stored twice if the map is doubled.
template <typename T>
ZELLIGE_INLINE void pixels_body(const T *x, std::int64_t pixels, std::int64_t channels, const float *scale,
                                const float *shift, bool twice, T *y) {
    for (std::int64_t k = 0; k < pixels; ++k) {
        T *into = y + (twice ? 2 : 1) * k * channels;
        affine_pixel(x + k * channels, channels, scale, shift, into);
        if (twice) std::copy_n(into, channels, into + channels);
    }
}

ZELLIGE_CLONES void pixels_of(const float *x, std::int64_t pixels, std::int64_t channels, const float *scale,
                              const float *shift, bool twice, float *y) {
    pixels_body(x, pixels, channels, scale, shift, twice, y);
}

ZELLIGE_CLONES void pixels_of(const bfloat16 *x, std::int64_t pixels, std::int64_t channels, const float *scale,
                              const float *shift, bool twice, bfloat16 *y) {
    pixels_body(x, pixels, channels, scale, shift, twice, y);
}

struct Map {
    std::int64_t samples, channels, rows, columns;
};

template <typename T>
void by_plane(const Map &size, const T *x, const float *scale, const float *shift, bool upsample, T *y) {
    const std::int64_t plane = size.rows * size.columns;
    const std::int64_t planes = size.samples * size.channels, grain = long_grain(planes, values_a_part / plane + 1);
    parallel_for(planes, grain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t k = begin; k < end; ++k) {
            if (!upsample) {
                plane_row(x + k * plane, plane, scale[k], shift[k], false, y + k * plane);
                continue;
            }
            for (std::int64_t row = 0; row < size.rows; ++row) {
                T *into = y + 4 * k * plane + 4 * row * size.columns;
                plane_row(x + k * plane + row * size.columns, size.columns, scale[k], shift[k], true, into);
                std::copy_n(into, 2 * size.columns, into + 2 * size.columns);
            }
        }
    });
}

template <typename T>
void by_pixel(const Map &size, const T *x, const float *scale, const float *shift, bool upsample, T *y) {
    const std::int64_t row = size.columns * size.channels;
    const std::int64_t rows = size.samples * size.rows, grain = long_grain(rows, values_a_part / row + 1);
    parallel_for(rows, grain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t k = begin; k < end; ++k) {
            const std::int64_t at = k / size.rows * size.channels;
            T *into = y + (upsample ? 4 : 1) * k * row;
            pixels_of(x + k * row, size.columns, size.channels, scale + at, shift + at, upsample, into);
            if (upsample) std::copy_n(into, 2 * row, into + 2 * row);
        }
    });
}

using Values = nb::ndarray<nb::ro, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Factors = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Result = nb::ndarray<nb::ndim<4>, nb::c_contig, nb::device::cpu>;

// op.py has checked shapes and dtypes. Maps come in the order of their memory: [N, H, W, C] if channels-last.
void affine_relu(const Values &x, const Factors &scale, const Factors &shift, const Result &y, bool upsample,
                 bool channels_last) {
    const auto extent = [&](std::size_t axis) { return static_cast<std::int64_t>(x.shape(axis)); };
    const Map size = channels_last ? Map{extent(0), extent(3), extent(1), extent(2)}
                                   : Map{extent(0), extent(1), extent(2), extent(3)};
    const auto run = [&]<typename T>(const T *values) {
        nb::gil_scoped_release unlocked;
        const auto pass = channels_last ? by_pixel<T> : by_plane<T>;
        std::vector<float> room[2];
        const float *scales = prepared<T>(scale.data(), size.samples, size.channels, channels_last, room[0]);
        const float *shifts = prepared<T>(shift.data(), size.samples, size.channels, channels_last, room[1]);
        pass(size, values, scales, shifts, upsample, static_cast<T *>(y.data()));
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
    module.def("affine_relu", &affine_relu, "x"_a, "scale"_a, "shift"_a, "y"_a.noconvert(), "upsample"_a,
               "channels_last"_a);
}

}  // namespace zellige
