// One pass over gradient and map: it stores the slope of every value, and adds slopes up over pixels for the bias and
// over channels for noise and strength.
#include <cstddef>
#include <stdexcept>

#include <nanobind/ndarray.h>

#include "bias_noise_act/act.hpp"
#include "cpu/channel_sums.hpp"

namespace nb = nanobind;

namespace zellige {
namespace {

constexpr std::int64_t values_a_part = 1 << 15;  // enough to pay for handing a part to a thread
constexpr std::int64_t shortest_run = 1 << 10;   // values of a plane that the processor recognises as a stream

ZELLIGE_INLINE float slope_at(float value, float gradient, Act by) {
    const float slope = by.gain * gradient;
    return value >= 0.0f ? slope : by.slope * slope;
}

// These are functions because the compiler trusts __restrict on parameters more than on variables.
ZELLIGE_INLINE void add_run(const float *__restrict gradient, const float *__restrict x, std::int64_t size, float bias,
                            Act by, float *__restrict dx, float *__restrict lanes) {
    by_lanes(size, [&](std::int64_t i, std::int64_t lane) __attribute__((always_inline)) {
        dx[i] = slope_at(x[i] + bias, gradient[i], by);
        lanes[lane] += dx[i];
    });
}

ZELLIGE_INLINE void add_noisy_run(const float *__restrict gradient, const float *__restrict x, std::int64_t size,
                                  float bias, const float *__restrict noise, float strength, Act by,
                                  float *__restrict dx, float *__restrict over_channels, float *__restrict lanes) {
    by_lanes(size, [&](std::int64_t i, std::int64_t lane) __attribute__((always_inline)) {
        const float slope = slope_at(x[i] + strength * noise[i] + bias, gradient[i], by);
        dx[i] = slope;
        over_channels[i] += slope;
        lanes[lane] += slope;
    });
}

// Takes values with a bias and a speck each.
ZELLIGE_INLINE void add_values(const float *__restrict gradient, const float *__restrict x, std::int64_t size,
                               const float *__restrict bias, const float *__restrict specks, Act by,
                               float *__restrict dx, float *__restrict sums) {
    for (std::int64_t i = 0; i < size; ++i) {
        const float slope = slope_at(x[i] + specks[i] + bias[i], gradient[i], by);
        dx[i] = slope;
        sums[i] += slope;
    }
}

// Takes values with a bias each and one speck.
ZELLIGE_INLINE void add_pixel(const float *__restrict gradient, const float *__restrict x, std::int64_t channels,
                              const float *__restrict bias, float speck, Act by, float *__restrict dx,
                              float *__restrict sums) {
    for (std::int64_t c = 0; c < channels; ++c) {
        const float slope = slope_at(x[c] + speck + bias[c], gradient[c], by);
        dx[c] = slope;
        sums[c] += slope;
    }
}

ZELLIGE_INLINE float sum_of(const float *__restrict values, std::int64_t size) {
    constexpr std::int64_t width = 16;
    float lanes[width] = {};
    std::int64_t i = 0;
    for (; i + width <= size; i += width)
        for (std::int64_t lane = 0; lane < width; ++lane) lanes[lane] += values[i + lane];
    for (std::int64_t lane = 0; i + lane < size; ++lane) lanes[lane] += values[i + lane];
    for (std::int64_t half = width / 2; half > 0; half /= 2)
        for (std::int64_t lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
    return lanes[0];
}

template <int constant>
ZELLIGE_INLINE void sum_pixels(const float *__restrict values, std::int64_t pixels, std::int64_t any,
                               float *__restrict sums) {
    const std::int64_t channels = constant ? constant : any;
    for (std::int64_t pixel = 0; pixel < pixels; ++pixel) {
        float sum = values[pixel * channels];
        for (std::int64_t c = 1; c < channels; ++c) sum += values[pixel * channels + c];
        sums[pixel] = sum;
    }
}

template <typename T>
struct Part {
    const T *gradient, *x;
    const float *noise;  // null: none
    T *dx;
    float *over_channels;  // null if there is no noise
};

template <typename T>
ZELLIGE_INLINE float plane_body(const Part<T> &of, std::int64_t size, float bias, float strength, Act by) {
    Slice<T> values, gradients, results;
    float lanes[sum_lanes] = {};
    for (std::int64_t from = 0; from < size; from += most) {
        const std::int64_t count = std::min(most, size - from);
        const float *gradient = Slice<T>::read(gradients, of.gradient + from, count);
        const float *x = Slice<T>::read(values, of.x + from, count);
        float *dx = Slice<T>::begin(results, of.dx + from);
        if (of.noise)
            add_noisy_run(gradient, x, count, bias, of.noise + from, strength, by, dx, of.over_channels + from, lanes);
        else
            add_run(gradient, x, count, bias, by, dx, lanes);
        Slice<T>::end(results, count, of.dx + from);
    }
    return total_of(lanes);
}

ZELLIGE_CLONES float plane(const Part<float> &of, std::int64_t size, float bias, float strength, Act by) {
    return plane_body(of, size, bias, strength, by);
}

ZELLIGE_CLONES float plane(const Part<bfloat16> &of, std::int64_t size, float bias, float strength, Act by) {
    return plane_body(of, size, bias, strength, by);
}

// Takes pixels of few channels, as many at once as a slice holds.
template <typename T>
ZELLIGE_INLINE void narrow_pixels(const Part<T> &of, std::int64_t pixels, std::int64_t channels, const float *bias,
                                  float strength, Act by, float *sums) {
    Slice<T> values, gradients, results;
    float biases[most], specks[most], lanes[most] = {};
    const std::int64_t together = pixels_together(channels);
    std::fill(specks, specks + most, -0.0f);  // changes no value
    repeat(bias, together, channels, biases);
    for (std::int64_t pixel = 0; pixel < pixels; pixel += together) {
        const std::int64_t some = std::min(together, pixels - pixel), at = pixel * channels, count = some * channels;
        if (of.noise) spread(of.noise + pixel, strength, some, channels, specks);
        float *dx = Slice<T>::begin(results, of.dx + at);
        add_values(Slice<T>::read(gradients, of.gradient + at, count), Slice<T>::read(values, of.x + at, count), count,
                   biases, specks, by, dx, lanes);
        if (of.noise && channels == 3)
            sum_pixels<3>(dx, some, channels, of.over_channels + pixel);
        else if (of.noise)
            sum_pixels<0>(dx, some, channels, of.over_channels + pixel);
        Slice<T>::end(results, count, of.dx + at);
    }
    for (std::int64_t i = 0; i < together * channels; ++i) sums[i % channels] += lanes[i];
}

template <typename T>
ZELLIGE_INLINE void wide_pixels(const Part<T> &of, std::int64_t pixels, std::int64_t channels, const float *bias,
                                float strength, Act by, float *sums) {
    Slice<T> values, gradients, results;
    for (std::int64_t pixel = 0; pixel < pixels; ++pixel) {
        const float speck = of.noise ? strength * of.noise[pixel] : 0.0f;
        float sum = 0.0f;
        for (std::int64_t from = 0; from < channels; from += most) {
            const std::int64_t at = pixel * channels + from, count = std::min(most, channels - from);
            float *dx = Slice<T>::begin(results, of.dx + at);
            add_pixel(Slice<T>::read(gradients, of.gradient + at, count), Slice<T>::read(values, of.x + at, count),
                      count, bias + from, speck, by, dx, sums + from);
            if (of.noise) sum += sum_of(dx, count);
            Slice<T>::end(results, count, of.dx + at);
        }
        if (of.noise) of.over_channels[pixel] = sum;
    }
}

template <typename T>
ZELLIGE_INLINE void pixels_body(const Part<T> &of, std::int64_t pixels, std::int64_t channels, const float *bias,
                                float strength, Act by, float *sums) {
    if (channels < few_channels)
        narrow_pixels(of, pixels, channels, bias, strength, by, sums);
    else
        wide_pixels(of, pixels, channels, bias, strength, by, sums);
}

ZELLIGE_CLONES void pixels_of(const Part<float> &of, std::int64_t pixels, std::int64_t channels, const float *bias,
                              float strength, Act by, float *sums) {
    pixels_body(of, pixels, channels, bias, strength, by, sums);
}

ZELLIGE_CLONES void pixels_of(const Part<bfloat16> &of, std::int64_t pixels, std::int64_t channels, const float *bias,
                              float strength, Act by, float *sums) {
    pixels_body(of, pixels, channels, bias, strength, by, sums);
}

template <typename T>
void backward(const Map &size, bool channels_last, const T *gradient, const T *x, const float *bias, const Noise &noise,
              Act by, T *dx, float *dbias, float *over_channels) {
    // In channels-last maps a part has few enough pixels for its sums to keep their digits.
    const std::int64_t longest = channels_last ? std::clamp<std::int64_t>(values_a_part / size.channels, 1, most)
                                               : std::max(values_a_part / size.channels, shortest_run);
    const std::int64_t pixels_a_part = std::min(longest, size.pixels), sample = size.channels * size.pixels;
    ChannelSums sums(size.samples, size.channels, size.pixels, pixels_a_part);
    const std::int64_t parts = sums.parts(), grain = values_a_part / (pixels_a_part * size.channels) + 1;
    parallel_for(size.samples * parts, grain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t k = begin; k < end; ++k) {
            const std::int64_t n = k / parts, from = k % parts * pixels_a_part;
            const std::int64_t pixels = std::min(pixels_a_part, size.pixels - from);
            float *over = over_channels ? over_channels + n * size.pixels + from : nullptr;
            float *into = sums.of(n, k % parts);
            const auto part_at = [&](std::int64_t at) {
                return Part<T>{gradient + at, x + at, noise.at(n, from), dx + at, over};
            };
            if (channels_last) {
                pixels_of(part_at(n * sample + from * size.channels), pixels, size.channels, bias, noise.strength, by,
                          into);
                continue;
            }
            if (over) std::fill(over, over + pixels, 0.0f);
            for (std::int64_t c = 0; c < size.channels; ++c)
                into[c] = plane(part_at(n * sample + c * size.pixels + from), pixels, bias[c], noise.strength, by);
        }
    });
    for (std::int64_t c = 0; c < size.channels; ++c) {
        double sum = 0;
        for (std::int64_t n = 0; n < size.samples; ++n) sum += sums.first(n, c);
        dbias[c] = static_cast<float>(sum);
    }
}

using Values = nb::ndarray<nb::ro, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Biases = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Specks = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Result = nb::ndarray<nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using ByChannel = nb::ndarray<float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using ByPixel = nb::ndarray<float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;

// op.py has checked shapes and dtypes. Maps come in the order of their memory: [N, H, W, C] if channels-last. The
// sum over channels is made if there is noise.
void bias_noise_act_backward(const Values &gradient, const Values &x, const Biases &bias, const Specks &specks,
                             float strength, float slope, float gain, const Result &dx, const ByChannel &dbias,
                             const ByPixel &over_channels, bool channels_last) {
    const auto extent = [&](std::size_t axis) { return static_cast<std::int64_t>(x.shape(axis)); };
    const Map size = channels_last ? Map{extent(0), extent(3), extent(1) * extent(2)}
                                   : Map{extent(0), extent(1), extent(2) * extent(3)};
    const Noise noise = specks.is_valid() ? Noise{specks.data(), specks.shape(0) == 1 ? 0 : size.pixels, strength}
                                          : Noise{nullptr, 0, 0.0f};
    const auto run = [&]<typename T>(const T *values) {
        nb::gil_scoped_release unlocked;
        backward(size, channels_last, static_cast<const T *>(gradient.data()), values, bias.data(), noise,
                 Act{slope, gain}, static_cast<T *>(dx.data()), dbias.data(),
                 specks.is_valid() ? over_channels.data() : nullptr);
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
    module.def("bias_noise_act_backward", &bias_noise_act_backward, "gradient"_a, "x"_a, "bias"_a, "noise"_a.none(),
               "strength"_a, "slope"_a, "gain"_a, "dx"_a.noconvert(), "dbias"_a.noconvert(),
               "over_channels"_a.noconvert().none(), "channels_last"_a);
}

}  // namespace zellige
