// Three passes over each sample: the statistics, as in the forward pass; the sums over pixels, which the weight's
// gradient and the slopes need; the slopes. The gate is computed twice, because keeping it would take longer.
#include <cstddef>
#include <stdexcept>
#include <vector>

#include <nanobind/ndarray.h>

#include "cpu/channel_sums.hpp"
#include "glu_layer_norm/statistics.hpp"

namespace nb = nanobind;

namespace zellige {
namespace {

constexpr std::int64_t values_a_part = 1 << 14;  // enough to pay for handing a part to a thread

constexpr std::int64_t most = Slice<bfloat16>::most;

// How one sample's values are normalised, and the parts of their slopes that mean and deviation take back.
struct Slopes {
    Normal normal;
    float mean, across;
};

ZELLIGE_INLINE float normalised(float value, const Normal &of) { return (value - of.centre) * of.inverse - of.shift; }

// The gate, as exact as T. The sums take float32 gates even for bfloat16 maps.
template <typename T>
ZELLIGE_INLINE float gate_of(float value) {
    return 1.0f / one_plus_exp_of_minus<T>(value);
}

// Slices of values, gates and gradients.
template <typename T>
struct Inputs {
    Slice<T> values, gates, gradients;
    const float *left, *right, *gradient;

    ZELLIGE_INLINE void read(Inputs &of, const T *left, const T *right, const T *gradient, std::int64_t size) {
        of.left = Slice<T>::read(of.values, left, size);
        of.right = Slice<T>::read(of.gates, right, size);
        of.gradient = Slice<T>::read(of.gradients, gradient, size);
    }
};

template <typename T>
ZELLIGE_INLINE void plane_sums_body(const T *left, const T *right, const T *gradient, std::int64_t size,
                                    const Normal &normal, float &with_value, float &alone) {
    const Normal of = normal;
    Lanes sums;
    Inputs<T> slice;
    for (std::int64_t from = 0; from < size; from += most) {
        const std::int64_t count = std::min(most, size - from);
        Inputs<T>::read(slice, left + from, right + from, gradient + from, count);
        by_lanes(count, [&](std::int64_t i, std::int64_t lane) __attribute__((always_inline)) {
            const float gated = slice.gradient[i] * gate_of<float>(slice.right[i]);
            sums.first[lane] += gated * normalised(slice.left[i], of);
            sums.second[lane] += gated;
        });
    }
    with_value = total_of(sums.first);
    alone = total_of(sums.second);
}

// These are functions because the compiler trusts __restrict on parameters more than on variables.
ZELLIGE_INLINE void add_pixel(const float *__restrict left, const float *__restrict right,
                              const float *__restrict gradient, std::int64_t channels, const Normal &of,
                              float *__restrict with_value, float *__restrict alone) {
    for (std::int64_t c = 0; c < channels; ++c) {
        const float gated = gradient[c] * gate_of<float>(right[c]);
        with_value[c] += gated * normalised(left[c], of);
        alone[c] += gated;
    }
}

template <std::int64_t step, typename T>
ZELLIGE_INLINE void differentiate(const float *__restrict left, const float *__restrict right,
                                  const float *__restrict gradient, std::int64_t size, const Slopes &of,
                                  const float *__restrict weight, const float *__restrict bias,
                                  float *__restrict dleft, float *__restrict dright) {
    for (std::int64_t i = 0; i < size; ++i) {
        const float value = normalised(left[i], of.normal), gate = gate_of<T>(right[i]), gated = gradient[i] * gate;
        dleft[i] = (gated * weight[step * i] - of.mean - value * of.across) * of.normal.inverse;
        dright[i] = gated * (1.0f - gate) * (value * weight[step * i] + bias[step * i]);
    }
}

template <typename T>
ZELLIGE_INLINE void pixel_sums_body(const T *x, const T *gradient, std::int64_t pixels, std::int64_t channels,
                                    const Normal &normal, float *sums) {
    const Normal of = normal;
    Inputs<T> slice;
    for (std::int64_t pixel = 0; pixel < pixels; ++pixel) {
        const T *left = x + 2 * pixel * channels;
        ask_for(left + ahead_of<T>(2 * channels), 2 * channels);
        for (std::int64_t from = 0; from < channels; from += most) {
            const std::int64_t count = std::min(most, channels - from);
            Inputs<T>::read(slice, left + from, left + channels + from, gradient + pixel * channels + from, count);
            add_pixel(slice.left, slice.right, slice.gradient, count, of, sums + from, sums + channels + from);
        }
    }
}

// Computes the slopes of `size` values. Their weights and biases lie `step` apart: 0 in a plane, 1 in a pixel.
template <std::int64_t step, typename T>
ZELLIGE_INLINE void slopes_of(const T *left, const T *right, const T *gradient, std::int64_t size, const Slopes &of,
                              const float *weight, const float *bias, T *dleft, T *dright) {
    Inputs<T> slice;
    Slice<T> lefts, rights;
    for (std::int64_t from = 0; from < size; from += most) {
        const std::int64_t count = std::min(most, size - from);
        Inputs<T>::read(slice, left + from, right + from, gradient + from, count);
        differentiate<step, T>(slice.left, slice.right, slice.gradient, count, of, weight + step * from,
                            bias + step * from, Slice<T>::begin(lefts, dleft + from),
                            Slice<T>::begin(rights, dright + from));
        Slice<T>::end(lefts, count, dleft + from);
        Slice<T>::end(rights, count, dright + from);
    }
}

template <typename T>
ZELLIGE_INLINE void plane_slopes_body(const T *left, const T *right, const T *gradient, std::int64_t size,
                                      const Slopes &slopes, float weight, float bias, T *dleft, T *dright) {
    slopes_of<0>(left, right, gradient, size, slopes, &weight, &bias, dleft, dright);
}

template <typename T>
ZELLIGE_INLINE void pixel_slopes_body(const T *x, const T *gradient, std::int64_t pixels, std::int64_t channels,
                                      const Slopes &slopes, const float *weight, const float *bias, T *dx) {
    const Slopes of = slopes;
    for (std::int64_t pixel = 0; pixel < pixels; ++pixel) {
        const T *left = x + 2 * pixel * channels;
        T *dleft = dx + 2 * pixel * channels;
        slopes_of<1>(left, left + channels, gradient + pixel * channels, channels, of, weight, bias, dleft,
                     dleft + channels);
    }
}

ZELLIGE_CLONES void plane_sums(const float *left, const float *right, const float *gradient, std::int64_t size,
                               const Normal &normal, float &with_value, float &alone) {
    plane_sums_body(left, right, gradient, size, normal, with_value, alone);
}

ZELLIGE_CLONES void plane_sums(const bfloat16 *left, const bfloat16 *right, const bfloat16 *gradient,
                               std::int64_t size, const Normal &normal, float &with_value, float &alone) {
    plane_sums_body(left, right, gradient, size, normal, with_value, alone);
}

ZELLIGE_CLONES void plane_slopes(const float *left, const float *right, const float *gradient, std::int64_t size,
                                 const Slopes &slopes, float weight, float bias, float *dleft, float *dright) {
    plane_slopes_body(left, right, gradient, size, slopes, weight, bias, dleft, dright);
}

ZELLIGE_CLONES void plane_slopes(const bfloat16 *left, const bfloat16 *right, const bfloat16 *gradient,
                                 std::int64_t size, const Slopes &slopes, float weight, float bias, bfloat16 *dleft,
                                 bfloat16 *dright) {
    plane_slopes_body(left, right, gradient, size, slopes, weight, bias, dleft, dright);
}

ZELLIGE_CLONES void pixel_sums(const float *x, const float *gradient, std::int64_t pixels, std::int64_t channels,
                               const Normal &normal, float *sums) {
    pixel_sums_body(x, gradient, pixels, channels, normal, sums);
}

ZELLIGE_CLONES void pixel_sums(const bfloat16 *x, const bfloat16 *gradient, std::int64_t pixels, std::int64_t channels,
                               const Normal &normal, float *sums) {
    pixel_sums_body(x, gradient, pixels, channels, normal, sums);
}

ZELLIGE_CLONES void pixel_slopes(const float *x, const float *gradient, std::int64_t pixels, std::int64_t channels,
                                 const Slopes &slopes, const float *weight, const float *bias, float *dx) {
    pixel_slopes_body(x, gradient, pixels, channels, slopes, weight, bias, dx);
}

ZELLIGE_CLONES void pixel_slopes(const bfloat16 *x, const bfloat16 *gradient, std::int64_t pixels,
                                 std::int64_t channels, const Slopes &slopes, const float *weight, const float *bias,
                                 bfloat16 *dx) {
    pixel_slopes_body(x, gradient, pixels, channels, slopes, weight, bias, dx);
}

struct Map {
    std::int64_t samples, channels, pixels;  // channels of one half
    bool channels_last;
};

template <typename T>
struct Sample {
    const T *x, *gradient;
    T *dx;
};

// Calls body(channel, part) for the parts of an NCHW sample, body(0, part) for those of a channels-last one, which have
// all channels.
template <typename Body>
void over_parts(const Map &size, std::int64_t parts, bool together, const Body &body) {
    const std::int64_t channels = size.channels_last ? 1 : size.channels;
    const std::int64_t values = size.pixels * size.channels / (channels * parts) + 1;
    const auto units = [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t k = begin; k < end; ++k) body(k / parts, k % parts);
    };
    if (together)
        parallel_for(channels * parts, values_a_part / values + 1, units);
    else
        units(0, channels * parts);
}

template <typename T>
void backward_of(const Map &size, const Sample<T> &of, std::int64_t n, std::int64_t pixels_a_part, const Normal &normal,
                 const float *weight, const float *bias, bool together, ChannelSums &sums) {
    const std::int64_t half = size.channels * size.pixels;
    const auto pixels_from = [&](std::int64_t from) { return std::min(pixels_a_part, size.pixels - from); };
    over_parts(size, sums.parts(), together, [&](std::int64_t channel, std::int64_t part) {
        const std::int64_t from = part * pixels_a_part, at = channel * size.pixels + from;
        float *into = sums.of(n, part) + channel;
        if (size.channels_last)
            pixel_sums(of.x + 2 * from * size.channels, of.gradient + from * size.channels, pixels_from(from),
                       size.channels, normal, into);
        else
            plane_sums(of.x + at, of.x + half + at, of.gradient + at, pixels_from(from), normal, into[0],
                       into[size.channels]);
    });
    double across = 0, mean = 0;
    for (std::int64_t c = 0; c < size.channels; ++c) {
        across += static_cast<double>(weight[c]) * sums.first(n, c);
        mean += static_cast<double>(weight[c]) * sums.second(n, c);
    }
    const Slopes slopes{normal, static_cast<float>(mean / static_cast<double>(half)),
                        static_cast<float>(across / static_cast<double>(half))};
    over_parts(size, sums.parts(), together, [&](std::int64_t channel, std::int64_t part) {
        const std::int64_t from = part * pixels_a_part, at = channel * size.pixels + from;
        if (size.channels_last)
            pixel_slopes(of.x + 2 * from * size.channels, of.gradient + from * size.channels, pixels_from(from),
                         size.channels, slopes, weight, bias, of.dx + 2 * from * size.channels);
        else
            plane_slopes(of.x + at, of.x + half + at, of.gradient + at, pixels_from(from), slopes, weight[channel],
                         bias[channel], of.dx + at, of.dx + half + at);
    });
}

template <typename T>
void backward(const Map &size, const T *gradient, const T *x, const float *weight, const float *bias, double eps,
              T *dx, float *dweight, float *dbias) {
    const std::int64_t values = size.channels * size.pixels;
    const Runs runs = size.channels_last ? Runs{size.pixels, size.channels} : Runs{1, values};
    const std::int64_t pixels_a_part = pixels_of_a_part(size.channels_last);
    ChannelSums sums(size.samples, size.channels, size.pixels, pixels_a_part);
    const auto sample = [&](std::int64_t n) {
        return Sample<T>{x + 2 * n * values, gradient + n * values, dx + 2 * n * values};
    };
    if (values * static_cast<std::int64_t>(sizeof(T)) <= bytes_of_one_thread && size.samples > 1) {
        parallel_for(size.samples, values_a_part / values + 1, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t n = begin; n < end; ++n)
                backward_of(size, sample(n), n, pixels_a_part, normal_alone(sample(n).x, runs, eps), weight, bias,
                            false, sums);
        });
    } else {
        std::vector<Moments> blocks(static_cast<std::size_t>(runs.blocks()));
        for (std::int64_t n = 0; n < size.samples; ++n)
            backward_of(size, sample(n), n, pixels_a_part, normal_together(sample(n).x, runs, eps, blocks.data()),
                        weight, bias, true, sums);
    }
    for (std::int64_t c = 0; c < size.channels; ++c) {
        double with_value = 0, alone = 0;
        for (std::int64_t n = 0; n < size.samples; ++n) {
            with_value += sums.first(n, c);
            alone += sums.second(n, c);
        }
        dweight[c] = static_cast<float>(with_value);
        dbias[c] = static_cast<float>(alone);
    }
}

using Values = nb::ndarray<nb::ro, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Factors = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Result = nb::ndarray<nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Sums = nb::ndarray<float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// op.py has checked shapes and dtypes. Maps come in the order of their memory: [N, H, W, C] if channels-last.
void glu_layer_norm_backward(const Values &gradient, const Values &x, const Factors &weight, const Factors &bias,
                             const Result &dx, const Sums &dweight, const Sums &dbias, double eps,
                             bool channels_last) {
    const auto extent = [&](std::size_t axis) { return static_cast<std::int64_t>(gradient.shape(axis)); };
    const Map size = channels_last ? Map{extent(0), extent(3), extent(1) * extent(2), true}
                                   : Map{extent(0), extent(1), extent(2) * extent(3), false};
    const auto run = [&]<typename T>(const T *values) {
        nb::gil_scoped_release unlocked;
        backward(size, static_cast<const T *>(gradient.data()), values, weight.data(), bias.data(), eps,
                 static_cast<T *>(dx.data()), dweight.data(), dbias.data());
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
    module.def("glu_layer_norm_backward", &glu_layer_norm_backward, "gradient"_a, "x"_a, "weight"_a, "bias"_a,
               "dx"_a.noconvert(), "dweight"_a.noconvert(), "dbias"_a.noconvert(), "eps"_a, "channels_last"_a);
}

}  // namespace zellige
