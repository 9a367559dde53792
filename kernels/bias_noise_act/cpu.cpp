// One pass over the map: runs of a plane with one bias (NCHW), or pixels with the row of biases (channels-last).
#include <cstddef>
#include <stdexcept>

#include <nanobind/ndarray.h>

#include "bias_noise_act/act.hpp"

namespace nb = nanobind;

namespace zellige {
namespace {

constexpr std::int64_t values_a_part = 1 << 15;  // enough to pay for handing a part to a thread
constexpr std::int64_t run = 1 << 14;            // pixels whose noise stays in the second cache for all channels

// Computes pixels of one plane. `noise` is that of these pixels, or null.
template <typename T>
ZELLIGE_INLINE void plane_run_body(const T *__restrict x, std::int64_t size, float factor, float bias,
                                   const float *__restrict noise, float strength, Act by, T *__restrict y) {
    if (noise)
        for (std::int64_t i = 0; i < size; ++i) narrow(act(factor * widen(x[i]) + strength * noise[i] + bias, by), y[i]);
    else
        for (std::int64_t i = 0; i < size; ++i) narrow(act(factor * widen(x[i]) + bias, by), y[i]);
}

ZELLIGE_CLONES void plane_run(const float *x, std::int64_t size, float factor, float bias, const float *noise,
                              float strength, Act by, float *y) {
    plane_run_body(x, size, factor, bias, noise, strength, by, y);
}

ZELLIGE_CLONES void plane_run(const bfloat16 *x, std::int64_t size, float factor, float bias, const float *noise,
                              float strength, Act by, bfloat16 *y) {
    plane_run_body(x, size, factor, bias, noise, strength, by, y);
}

// Computes values with a factor, a bias and a speck each.
template <typename T>
ZELLIGE_INLINE void values_of(const T *__restrict x, std::int64_t size, const float *__restrict factor,
                              const float *__restrict bias, const float *__restrict specks, Act by,
                              T *__restrict y) {
    for (std::int64_t i = 0; i < size; ++i) narrow(act(factor[i] * widen(x[i]) + specks[i] + bias[i], by), y[i]);
}

// Computes pixels of few channels, as many at once as a slice holds.
template <typename T>
ZELLIGE_INLINE void narrow_pixels(const T *x, std::int64_t pixels, std::int64_t channels, const float *factor,
                                  const float *bias, const float *noise, float strength, Act by, T *y) {
    float factors[most], biases[most], specks[most];
    const std::int64_t together = pixels_together(channels);
    repeat(factor, together, channels, factors);
    repeat(bias, together, channels, biases);
    std::fill(specks, specks + most, -0.0f);  // changes no value
    for (std::int64_t pixel = 0; pixel < pixels; pixel += together) {
        const std::int64_t some = std::min(together, pixels - pixel), at = pixel * channels;
        if (noise) spread(noise + pixel, strength, some, channels, specks);
        values_of(x + at, some * channels, factors, biases, specks, by, y + at);
    }
}

template <typename T>
ZELLIGE_INLINE void wide_pixels(const T *__restrict x, std::int64_t pixels, std::int64_t channels,
                                const float *__restrict factor, const float *__restrict bias,
                                const float *__restrict noise, float strength, Act by, T *__restrict y) {
    for (std::int64_t pixel = 0; pixel < pixels; ++pixel) {
        const T *__restrict from = x + pixel * channels;
        T *__restrict into = y + pixel * channels;
        if (noise) {
            const float speck = strength * noise[pixel];
            for (std::int64_t c = 0; c < channels; ++c)
                narrow(act(factor[c] * widen(from[c]) + speck + bias[c], by), into[c]);
        } else {
            for (std::int64_t c = 0; c < channels; ++c) narrow(act(factor[c] * widen(from[c]) + bias[c], by), into[c]);
        }
    }
}

// Computes `pixels` pixels of all channels. `noise` is that of these pixels, or null.
template <typename T>
ZELLIGE_INLINE void pixels_body(const T *x, std::int64_t pixels, std::int64_t channels, const float *factor,
                                const float *bias, const float *noise, float strength, Act by, T *y) {
    if (channels < few_channels)
        narrow_pixels(x, pixels, channels, factor, bias, noise, strength, by, y);
    else
        wide_pixels(x, pixels, channels, factor, bias, noise, strength, by, y);
}

ZELLIGE_CLONES void pixels_of(const float *x, std::int64_t pixels, std::int64_t channels, const float *factor,
                              const float *bias, const float *noise, float strength, Act by, float *y) {
    pixels_body(x, pixels, channels, factor, bias, noise, strength, by, y);
}

ZELLIGE_CLONES void pixels_of(const bfloat16 *x, std::int64_t pixels, std::int64_t channels, const float *factor,
                              const float *bias, const float *noise, float strength, Act by, bfloat16 *y) {
    pixels_body(x, pixels, channels, factor, bias, noise, strength, by, y);
}

template <typename T>
void by_plane(const Map &size, const T *x, const Factors &factor, const float *bias, const Noise &noise, Act by, T *y) {
    const std::int64_t runs = (size.pixels + run - 1) / run, longest = std::min(run, size.pixels);
    const std::int64_t count = size.samples * runs * size.channels;
    parallel_for(count, long_grain(count, values_a_part / longest + 1), [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t k = begin; k < end; ++k) {  // channels run fastest
            const std::int64_t c = k % size.channels, pixel = k / size.channels % runs * run;
            const std::int64_t sample = k / size.channels / runs;
            const std::int64_t at = (sample * size.channels + c) * size.pixels + pixel;
            plane_run(x + at, std::min(run, size.pixels - pixel), factor.of(sample)[c], bias[c],
                      noise.at(sample, pixel), noise.strength, by, y + at);
        }
    });
}

template <typename T>
void by_pixel(const Map &size, const T *x, const Factors &factor, const float *bias, const Noise &noise, Act by, T *y) {
    const std::int64_t count = size.samples * size.pixels;
    parallel_for(count, long_grain(count, values_a_part / size.channels + 1), [&](std::int64_t begin, std::int64_t end) {
        while (begin < end) {  // a part may reach into the next samples
            const std::int64_t sample = begin / size.pixels, pixel = begin % size.pixels;
            const std::int64_t some = std::min(end - begin, size.pixels - pixel), at = begin * size.channels;
            pixels_of(x + at, some, size.channels, factor.of(sample), bias, noise.at(sample, pixel), noise.strength, by,
                      y + at);
            begin += some;
        }
    });
}

using Values = nb::ndarray<nb::ro, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Biases = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Specks = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Rows = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Result = nb::ndarray<nb::ndim<4>, nb::c_contig, nb::device::cpu>;

// op.py has checked shapes and dtypes. Maps come in the order of their memory: [N, H, W, C] if channels-last.
void bias_noise_act(const Values &x, const Biases &bias, const Specks &specks, float strength, const Rows &rows,
                    float slope, float gain, float clamp, const Result &y, bool channels_last) {
    const auto extent = [&](std::size_t axis) { return static_cast<std::int64_t>(x.shape(axis)); };
    const Map size = channels_last ? Map{extent(0), extent(3), extent(1) * extent(2)}
                                   : Map{extent(0), extent(1), extent(2) * extent(3)};
    const Noise noise = specks.is_valid() ? Noise{specks.data(), specks.shape(0) == 1 ? 0 : size.pixels, strength}
                                          : Noise{nullptr, 0, 0.0f};
    const Factors factor(rows.is_valid() ? rows.data() : nullptr, size.channels);
    const auto pass_over = [&]<typename T>(const T *values) {
        nb::gil_scoped_release unlocked;
        const auto pass = channels_last ? by_pixel<T> : by_plane<T>;
        pass(size, values, factor, bias.data(), noise, Act{slope, gain, clamp}, static_cast<T *>(y.data()));
    };
    if (x.dtype() == nb::dtype<float>())
        pass_over(static_cast<const float *>(x.data()));
    else if (x.dtype().code == static_cast<std::uint8_t>(nb::dlpack::dtype_code::Bfloat) && x.dtype().bits == 16)
        pass_over(static_cast<const bfloat16 *>(x.data()));
    else
        throw std::invalid_argument("x must be float32 or bfloat16");
}

}  // namespace

ZELLIGE_BINDINGS(module) {
    using namespace nb::literals;
    module.def("bias_noise_act", &bias_noise_act, "x"_a, "bias"_a, "noise"_a.none(), "strength"_a,
               "factor"_a.none(), "slope"_a, "gain"_a, "clamp"_a, "y"_a.noconvert(), "channels_last"_a);
}

}  // namespace zellige
