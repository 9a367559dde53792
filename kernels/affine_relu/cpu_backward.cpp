// One pass over gradient and map: it stores the slope of every value, and adds slopes up for scale and for shift.
#include <cstddef>
#include <stdexcept>

#include <nanobind/ndarray.h>

#include "cpu/channel_sums.hpp"
#include "cpu/native.hpp"

namespace nb = nanobind;

namespace zellige {
namespace {

constexpr std::int64_t values_a_part = 1 << 14;  // enough to pay for handing a part to a thread

ZELLIGE_INLINE float slope_of(float gradient, float x, float scale, float shift) {
    return x * scale + shift > 0.0f ? gradient : 0.0f;
}

// Returns the gradients of `size` values. The gradient of a doubled value is the sum of its square's four, which lie
// `across` apart in a row and `below` apart from row to row.
template <typename T>
ZELLIGE_INLINE const float *given(Slice<T> &slice, float *__restrict room, const T *__restrict gradient,
                                  std::int64_t size, bool twice, std::int64_t step, std::int64_t across,
                                  std::int64_t below) {
    if (!twice) return Slice<T>::read(slice, gradient, size);
    for (std::int64_t i = 0; i < size; ++i) {
        const T *__restrict corner = gradient + i * step;
        room[i] = (widen(corner[0]) + widen(corner[across])) + (widen(corner[below]) + widen(corner[below + across]));
    }
    return room;
}

constexpr std::int64_t most = Slice<bfloat16>::most;

template <typename T>
ZELLIGE_INLINE void plane_body(const T *gradient, const T *x, std::int64_t rows, std::int64_t columns, float scale,
                               float shift, bool twice, T *dx, float &with_x, float &alone) {
    Lanes sums;
    Slice<T> values, gradients, results;
    float room[most];
    // Without doubling all rows are read as one.
    const std::int64_t runs = twice ? rows : 1, size = twice ? columns : rows * columns;
    for (std::int64_t run = 0; run < runs; ++run)
        for (std::int64_t from = 0; from < size; from += most) {
            const std::int64_t at = run * size + from, count = std::min(most, size - from);
            const T *slopes = gradient + (twice ? run * 4 * size + 2 * from : from);
            const float *__restrict read = Slice<T>::read(values, x + at, count);
            const float *__restrict slope = given(gradients, room, slopes, count, twice, 2, 1, 2 * columns);
            float *__restrict into = Slice<T>::begin(results, dx + at);
            by_lanes(count, [&](std::int64_t i, std::int64_t lane) __attribute__((always_inline)) {
                const float passed = slope_of(slope[i], read[i], scale, shift);
                into[i] = passed * scale;
                sums.first[lane] += passed * read[i];
                sums.second[lane] += passed;
            });
            Slice<T>::end(results, count, dx + at);
        }
    with_x = total_of(sums.first);
    alone = total_of(sums.second);
}

ZELLIGE_CLONES void plane(const float *gradient, const float *x, std::int64_t rows, std::int64_t columns, float scale,
                          float shift, bool twice, float *dx, float &with_x, float &alone) {
    plane_body(gradient, x, rows, columns, scale, shift, twice, dx, with_x, alone);
}

ZELLIGE_CLONES void plane(const bfloat16 *gradient, const bfloat16 *x, std::int64_t rows, std::int64_t columns,
                          float scale, float shift, bool twice, bfloat16 *dx, float &with_x, float &alone) {
    plane_body(gradient, x, rows, columns, scale, shift, twice, dx, with_x, alone);
}

// This is a function because the compiler trusts __restrict on parameters more than on variables.
ZELLIGE_INLINE void add_pixel(const float *__restrict slope, const float *__restrict x, std::int64_t channels,
                              const float *__restrict scale, const float *__restrict shift, float *__restrict dx,
                              float *__restrict with_x, float *__restrict alone) {
    for (std::int64_t c = 0; c < channels; ++c) {
        const float passed = slope_of(slope[c], x[c], scale[c], shift[c]);
        dx[c] = passed * scale[c];
        with_x[c] += passed * x[c];
        alone[c] += passed;
    }
}

// Takes pixels [first, first + pixels) of a sample with all channels. The pointers are the sample's.
template <typename T>
ZELLIGE_INLINE void pixels_body(const T *gradient, const T *x, std::int64_t first, std::int64_t pixels,
                                std::int64_t columns, std::int64_t channels, const float *scale, const float *shift,
                                bool twice, T *dx, float *sums) {
    Slice<T> values, gradients, results;
    float room[most];
    const std::int64_t below = 2 * columns * channels;
    for (std::int64_t pixel = first; pixel < first + pixels; ++pixel)
        for (std::int64_t from = 0; from < channels; from += most) {
            const std::int64_t at = pixel * channels + from, count = std::min(most, channels - from);
            const T *slopes = gradient + from +
                              (twice ? pixel / columns * 2 * below + pixel % columns * 2 * channels : pixel * channels);
            const float *slope = given(gradients, room, slopes, count, twice, 1, channels, below);
            add_pixel(slope, Slice<T>::read(values, x + at, count), count, scale + from, shift + from,
                      Slice<T>::begin(results, dx + at), sums + from, sums + channels + from);
            Slice<T>::end(results, count, dx + at);
        }
}

ZELLIGE_CLONES void pixels_of(const float *gradient, const float *x, std::int64_t first, std::int64_t pixels,
                              std::int64_t columns, std::int64_t channels, const float *scale, const float *shift,
                              bool twice, float *dx, float *sums) {
    pixels_body(gradient, x, first, pixels, columns, channels, scale, shift, twice, dx, sums);
}

ZELLIGE_CLONES void pixels_of(const bfloat16 *gradient, const bfloat16 *x, std::int64_t first, std::int64_t pixels,
                              std::int64_t columns, std::int64_t channels, const float *scale, const float *shift,
                              bool twice, bfloat16 *dx, float *sums) {
    pixels_body(gradient, x, first, pixels, columns, channels, scale, shift, twice, dx, sums);
}

struct Map {
    std::int64_t samples, channels, rows, columns;
    bool twice, channels_last;
};

void store(const Map &size, const ChannelSums &sums, float *dscale, float *dshift) {
    for (std::int64_t n = 0; n < size.samples; ++n)
        for (std::int64_t c = 0; c < size.channels; ++c) {
            dscale[n * size.channels + c] = static_cast<float>(sums.first(n, c));
            dshift[n * size.channels + c] = static_cast<float>(sums.second(n, c));
        }
}

template <typename T>
void backward(const Map &size, const T *gradient, const T *x, const float *scale, const float *shift, T *dx,
              float *dscale, float *dshift) {
    const std::int64_t plane_values = size.rows * size.columns, growth = size.twice ? 4 : 1;
    const std::int64_t pixels_a_part = pixels_of_a_part(size.channels_last);
    if (size.channels_last) {
        const std::int64_t sample = plane_values * size.channels;
        ChannelSums sums(size.samples, size.channels, plane_values, pixels_a_part);
        const std::int64_t parts = sums.parts(), grain = values_a_part / (pixels_a_part * size.channels) + 1;
        parallel_for(size.samples * parts, grain, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t k = begin; k < end; ++k) {
                const std::int64_t n = k / parts, first = k % parts * pixels_a_part;
                pixels_of(gradient + growth * n * sample, x + n * sample, first,
                          std::min(pixels_a_part, plane_values - first), size.columns, size.channels,
                          scale + n * size.channels, shift + n * size.channels, size.twice, dx + n * sample,
                          sums.of(n, k % parts));
            }
        });
        return store(size, sums, dscale, dshift);
    }
    // Parts of planes are whole rows, because a row becomes two rows when it is doubled.
    const std::int64_t rows_a_part = std::max<std::int64_t>(pixels_a_part / size.columns, 1);
    ChannelSums sums(size.samples, size.channels, size.rows, rows_a_part);
    const std::int64_t parts = sums.parts();
    const std::int64_t grain = values_a_part / std::min(plane_values, rows_a_part * size.columns) + 1;
    parallel_for(size.samples * size.channels * parts, grain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t k = begin; k < end; ++k) {
            const std::int64_t of = k / parts, n = of / size.channels, from = k % parts * rows_a_part;
            const std::int64_t at = of * plane_values + from * size.columns;
            float *into = sums.of(n, k % parts) + of % size.channels;
            plane(gradient + growth * at, x + at, std::min(rows_a_part, size.rows - from), size.columns, scale[of],
                  shift[of], size.twice, dx + at, into[0], into[size.channels]);
        }
    });
    store(size, sums, dscale, dshift);
}

using Values = nb::ndarray<nb::ro, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Factors = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Result = nb::ndarray<nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Sums = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

// op.py has checked shapes and dtypes. Maps come in the order of their memory: [N, H, W, C] if channels-last.
void affine_relu_backward(const Values &gradient, const Values &x, const Factors &scale, const Factors &shift,
                          const Result &dx, const Sums &dscale, const Sums &dshift, bool upsample,
                          bool channels_last) {
    const auto extent = [&](std::size_t axis) { return static_cast<std::int64_t>(x.shape(axis)); };
    const Map size = channels_last ? Map{extent(0), extent(3), extent(1), extent(2), upsample, true}
                                   : Map{extent(0), extent(1), extent(2), extent(3), upsample, false};
    const auto run = [&]<typename T>(const T *values) {
        nb::gil_scoped_release unlocked;
        backward(size, static_cast<const T *>(gradient.data()), values, scale.data(), shift.data(),
                 static_cast<T *>(dx.data()), dscale.data(), dshift.data());
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
    module.def("affine_relu_backward", &affine_relu_backward, "gradient"_a, "x"_a, "scale"_a, "shift"_a,
               "dx"_a.noconvert(), "dscale"_a.noconvert(), "dshift"_a.noconvert(), "upsample"_a, "channels_last"_a);
}

}  // namespace zellige
