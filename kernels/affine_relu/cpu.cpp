// One pass over the map: planes with one scale each (NCHW), pixels with a row of scales (channels-last), or, in either
// order, lines whose values have scales of their own.
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

// Computes `size` values of each of `rows` lines that share their factors.
template <int rows, typename T>
ZELLIGE_INLINE void lines_body(const T *__restrict x, std::int64_t step, std::int64_t size,
                               const float *__restrict scale, const float *__restrict shift, std::int64_t step_y,
                               T *__restrict y) {
    constexpr std::int64_t slice = 512 / sizeof(T);
    for (std::int64_t from = 0; from < size; from += slice) {
        for (int row = 0; row < rows; ++row) ask_for(x + row * step + from + 2 * slice, slice);
        for (std::int64_t i = from; i < std::min(from + slice, size); ++i)
            for (int row = 0; row < rows; ++row)
                narrow(affine(widen(x[row * step + i]), scale[i], shift[i]), y[row * step_y + i]);
    }
}

// Lines with the same factors are computed together if the factors, 8 bytes a value, do not fit into the first cache.
// Read from the second one for each line they would double the time of bfloat16.
constexpr int together = 4;
constexpr std::int64_t longest_alone = 1 << 11;

// Computes one line, or `together` of them.
ZELLIGE_CLONES void lines_of(const float *x, std::int64_t step, std::int64_t size, const float *scale,
                             const float *shift, bool one, std::int64_t step_y, float *y) {
    if (one) return lines_body<1>(x, step, size, scale, shift, step_y, y);
    lines_body<together>(x, step, size, scale, shift, step_y, y);
}

ZELLIGE_CLONES void lines_of(const bfloat16 *x, std::int64_t step, std::int64_t size, const float *scale,
                             const float *shift, bool one, std::int64_t step_y, bfloat16 *y) {
    if (one) return lines_body<1>(x, step, size, scale, shift, step_y, y);
    lines_body<together>(x, step, size, scale, shift, step_y, y);
}

// Stores each group of values twice.
template <typename T>
void double_groups(const T *__restrict from, std::int64_t size, std::int64_t group, T *__restrict into) {
    if (group == 1) {
        for (std::int64_t i = 0; i < size; ++i) into[2 * i] = into[2 * i + 1] = from[i];
        return;
    }
    for (std::int64_t i = 0; i < size; i += group)
        for (std::int64_t twice = 0; twice < 2; ++twice) std::copy_n(from + i, group, into + 2 * i + twice * group);
}

struct Map {
    std::int64_t samples, channels, rows, columns;
};

// The factors of a map, in the order of its memory. Rows and columns are the map's, or 1.
struct Factors {
    const float *scale, *shift;
    std::int64_t rows, columns;
};

template <typename T>
void by_plane(const Map &size, const Factors &of, const T *x, bool upsample, T *y) {
    const std::int64_t plane = size.rows * size.columns;
    const std::int64_t planes = size.samples * size.channels, grain = long_grain(planes, values_a_part / plane + 1);
    parallel_for(planes, grain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t k = begin; k < end; ++k) {
            if (!upsample && of.rows == 1) {
                plane_row(x + k * plane, plane, of.scale[k], of.shift[k], false, y + k * plane);
                continue;
            }
            for (std::int64_t row = k * size.rows; row < (k + 1) * size.rows; ++row) {
                const std::int64_t at = of.rows == 1 ? k : row;
                T *into = y + (upsample ? 4 : 1) * row * size.columns;
                plane_row(x + row * size.columns, size.columns, of.scale[at], of.shift[at], upsample, into);
                if (upsample) std::copy_n(into, 2 * size.columns, into + 2 * size.columns);
            }
        }
    });
}

template <typename T>
void by_pixel(const Map &size, const Factors &of, const T *x, bool upsample, T *y) {
    const std::int64_t row = size.columns * size.channels;
    const std::int64_t rows = size.samples * size.rows, grain = long_grain(rows, values_a_part / row + 1);
    parallel_for(rows, grain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t k = begin; k < end; ++k) {
            const std::int64_t at = (of.rows == 1 ? k / size.rows : k) * size.channels;
            T *into = y + (upsample ? 4 : 1) * k * row;
            pixels_of(x + k * row, size.columns, size.channels, of.scale + at, of.shift + at, upsample, into);
            if (upsample) std::copy_n(into, 2 * row, into + 2 * row);
        }
    });
}

// Takes factors that vary along the width or over the map. A line is a row of the map in the order of its memory; in it
// `group` neighbours are one pixel.
template <typename T>
void by_line(const Map &size, const Factors &of, std::int64_t group, const T *x, bool upsample, T *y) {
    const std::int64_t line = size.columns * group, step = (upsample ? 4 : 1) * line;
    const std::int64_t lines = size.samples * size.channels * size.rows / group, all = lines * line;
    if (of.rows == size.rows && !upsample) {  // every value has its own place, so lines do not matter
        parallel_for(all, long_grain(all, values_a_part), [&](std::int64_t begin, std::int64_t end) {
            lines_of(x + begin, 0, end - begin, of.scale + begin, of.shift + begin, true, 0, y + begin);
        });
        return;
    }
    const std::int64_t grain = long_grain(lines, values_a_part / line + 1);
    parallel_for(lines, (grain + together - 1) / together * together, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t k = begin; k < end;) {
            const std::int64_t at = (of.rows == 1 ? k / size.rows : k) * line;
            const std::int64_t same = of.rows == 1 ? std::min(end - k, size.rows - k % size.rows) : 1;
            const std::int64_t count = same < together || line <= longest_alone ? 1 : together;
            // The values of a doubled line wait in the second of the two lines that it becomes.
            T *into = y + k * step + (upsample ? 2 * line : 0);
            lines_of(x + k * line, line, line, of.scale + at, of.shift + at, count == 1, step, into);
            for (k += count; upsample && into < y + k * step; into += step) {
                double_groups(into, line, group, into - 2 * line);
                std::copy_n(into - 2 * line, 2 * line, into);
            }
        }
    });
}

using Values = nb::ndarray<nb::ro, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Floats = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using Result = nb::ndarray<nb::ndim<4>, nb::c_contig, nb::device::cpu>;

// op.py has checked shapes and dtypes. Maps come in the order of their memory: [N, H, W, C] if channels-last. Factors
// are [N, C], or maps whose rows and columns are x's or one.
void affine_relu(const Values &x, const Floats &scale, const Floats &shift, const Result &y, bool upsample,
                 bool channels_last) {
    const auto extent = [&](std::size_t axis) { return static_cast<std::int64_t>(x.shape(axis)); };
    const Map size = channels_last ? Map{extent(0), extent(3), extent(1), extent(2)}
                                   : Map{extent(0), extent(1), extent(2), extent(3)};
    const auto run = [&]<typename T>(const T *values) {
        nb::gil_scoped_release unlocked;
        const auto side = [&](std::size_t axis) {
            return scale.ndim() == 2 ? 1 : static_cast<std::int64_t>(scale.shape(axis));
        };
        Factors of{scale.data(), shift.data(), side(channels_last ? 1 : 2), side(channels_last ? 2 : 3)};
        T *into = static_cast<T *>(y.data());
        if (of.columns == size.columns && of.rows * of.columns > 1)
            return by_line(size, of, channels_last ? size.channels : 1, values, upsample, into);
        std::vector<float> room[2];
        of.scale = prepared<T>(of.scale, size.samples * of.rows, size.channels, channels_last, room[0]);
        of.shift = prepared<T>(of.shift, size.samples * of.rows, size.channels, channels_last, room[1]);
        (channels_last ? by_pixel<T> : by_plane<T>)(size, of, values, upsample, into);
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
