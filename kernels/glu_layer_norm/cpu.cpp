// Sample by sample: statistics of the first half, then one pass that normalises it and applies the second half's gate
// while the first is still in a cache. Small samples go to one thread each, large ones to all threads together.
#include <cmath>
#include <cstddef>
#include <stdexcept>
#include <vector>

#include <nanobind/ndarray.h>

#include "glu_layer_norm/statistics.hpp"

namespace nb = nanobind;

namespace zellige {
namespace {

constexpr std::int64_t values_a_part = 1 << 14;  // enough to pay for handing a part to a thread
constexpr std::int64_t lanes = 32;               // sums side by side; fixed, so that all clones agree

struct Sums {
    float distances[lanes] = {}, squares[lanes] = {};
};

template <typename T>
ZELLIGE_INLINE Sums sums_of(const T *__restrict x, std::int64_t runs, std::int64_t size, std::int64_t stride,
                            float pivot) {
    Sums sums;
    const auto add = [&](T value, std::int64_t lane) __attribute__((always_inline)) {
        const float distance = widen(value) - pivot;
        sums.distances[lane] += distance;
        sums.squares[lane] += distance * distance;
    };
    for (std::int64_t run = 0; run < runs; ++run) {
        const T *__restrict from = x + run * stride;
        if (stride > 0) ask_ahead(from, size, stride);
        std::int64_t i = 0;
        for (; i + lanes <= size; i += lanes)
            for (std::int64_t lane = 0; lane < lanes; ++lane) add(from[i + lane], lane);
        for (std::int64_t lane = 0; i + lane < size; ++lane) add(from[i + lane], lane);
    }
    return sums;
}

ZELLIGE_INLINE double total(const float *values) {
    double sum = 0;
    for (std::int64_t lane = 0; lane < lanes; ++lane) sum += static_cast<double>(values[lane]);
    return sum;
}

// Two passes over a block, which stays in the first cache: squares of distances from its mean do not cancel. What
// rounding took from that mean comes back from the second pass.
template <typename T>
ZELLIGE_INLINE Moments moments_body(const T *__restrict x, std::int64_t runs, std::int64_t size, std::int64_t stride) {
    const double count = static_cast<double>(runs * size);
    const Sums values = sums_of(x, runs, size, stride, 0.0f);
    const float pivot = static_cast<float>(total(values.distances) / count);
    const Sums around = sums_of(x, runs, size, stride, pivot);
    const double sum = total(around.distances), rest = sum / count;
    return {count, static_cast<double>(pivot) + rest, total(around.squares) - sum * rest};
}

ZELLIGE_CLONES Moments moments(const float *x, std::int64_t runs, std::int64_t size, std::int64_t stride) {
    return moments_body(x, runs, size, stride);
}

ZELLIGE_CLONES Moments moments(const bfloat16 *x, std::int64_t runs, std::int64_t size, std::int64_t stride) {
    return moments_body(x, runs, size, stride);
}

template <typename T>
Moments block_moments(const T *sample, const Runs &all, std::int64_t block) {
    if (all.length >= values_a_block) {  // a block is a piece of a run
        const std::int64_t pieces = (all.length + values_a_block - 1) / values_a_block;
        const std::int64_t run = block / pieces, begin = block % pieces * values_a_block;
        return moments(sample + 2 * run * all.length + begin, 1, std::min(values_a_block, all.length - begin), 0);
    }
    const std::int64_t together = values_a_block / all.length, begin = block * together;
    const std::int64_t runs = std::min(together, all.runs - begin);
    return moments(sample + 2 * begin * all.length, runs, all.length, 2 * all.length);
}

// Values `begin` to `end` of a sample by plane; the second half lies `half` values behind the first.
template <typename T>
ZELLIGE_INLINE void planes_body(const T *__restrict x, std::int64_t begin, std::int64_t end, std::int64_t plane,
                                std::int64_t half, const Normal &normal, const float *weight, const float *bias,
                                T *__restrict y) {
    const Normal of = normal;
    for (std::int64_t at = begin; at < end;) {
        const std::int64_t c = at / plane, until = std::min(end, (c + 1) * plane);
        const float scale = weight[c], offset = bias[c];
        for (std::int64_t i = at; i < until; ++i) gated(x[i], x[half + i], of, scale, offset, y[i]);
        at = until;
    }
}

ZELLIGE_CLONES void planes_of(const float *x, std::int64_t begin, std::int64_t end, std::int64_t plane,
                              std::int64_t half, const Normal &normal, const float *weight, const float *bias,
                              float *y) {
    planes_body(x, begin, end, plane, half, normal, weight, bias, y);
}

ZELLIGE_CLONES void planes_of(const bfloat16 *x, std::int64_t begin, std::int64_t end, std::int64_t plane,
                              std::int64_t half, const Normal &normal, const float *weight, const float *bias,
                              bfloat16 *y) {
    planes_body(x, begin, end, plane, half, normal, weight, bias, y);
}

// `pixels` pixels of all channels, each with its first half before its second.
template <typename T>
ZELLIGE_INLINE void pixels_body(const T *__restrict x, std::int64_t pixels, std::int64_t channels, const Normal &normal,
                                const float *__restrict weight, const float *__restrict bias, T *__restrict y) {
    const Normal of = normal;
    for (std::int64_t pixel = 0; pixel < pixels; ++pixel) {
        const T *__restrict from = x + 2 * pixel * channels;
        T *__restrict into = y + pixel * channels;
        ask_ahead(from + channels, channels, 2 * channels);
        for (std::int64_t c = 0; c < channels; ++c) gated(from[c], from[channels + c], of, weight[c], bias[c], into[c]);
    }
}

ZELLIGE_CLONES void pixels_of(const float *x, std::int64_t pixels, std::int64_t channels, const Normal &normal,
                              const float *weight, const float *bias, float *y) {
    pixels_body(x, pixels, channels, normal, weight, bias, y);
}

ZELLIGE_CLONES void pixels_of(const bfloat16 *x, std::int64_t pixels, std::int64_t channels, const Normal &normal,
                              const float *weight, const float *bias, bfloat16 *y) {
    pixels_body(x, pixels, channels, normal, weight, bias, y);
}

struct Map {
    std::int64_t samples, channels, pixels;  // channels of one half
    bool channels_last;
};

template <typename T>
void glu_layer_norm_of(const Map &size, const T *x, const float *weight, const float *bias, double eps, T *y) {
    const std::int64_t values = size.channels * size.pixels;
    const Runs runs = size.channels_last ? Runs{size.pixels, size.channels} : Runs{1, values};
    // Part of a sample: of its pixels, or of its values where it lies by plane.
    const std::int64_t parts = size.channels_last ? size.pixels : values;
    const auto normalise = [&](std::int64_t sample, const Normal &normal, std::int64_t begin, std::int64_t end) {
        const T *from = x + 2 * sample * values;
        T *into = y + sample * values;
        if (size.channels_last)
            pixels_of(from + 2 * begin * size.channels, end - begin, size.channels, normal, weight, bias,
                      into + begin * size.channels);
        else
            planes_of(from, begin, end, size.pixels, values, normal, weight, bias, into);
    };
    if (values * static_cast<std::int64_t>(sizeof(T)) <= bytes_of_one_thread && size.samples > 1) {
        parallel_for(size.samples, values_a_part / values + 1, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t sample = begin; sample < end; ++sample)
                normalise(sample, normal_alone(x + 2 * sample * values, runs, eps), 0, parts);
        });
        return;
    }
    std::vector<Moments> room(static_cast<std::size_t>(runs.blocks()));
    for (std::int64_t sample = 0; sample < size.samples; ++sample) {
        const Normal normal = normal_together(x + 2 * sample * values, runs, eps, room.data());
        parallel_for(parts, values_a_part * parts / values,
                     [&](std::int64_t begin, std::int64_t end) { normalise(sample, normal, begin, end); });
    }
}

using Values = nb::ndarray<nb::ro, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Factors = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Result = nb::ndarray<nb::ndim<4>, nb::c_contig, nb::device::cpu>;

// Trusts op.py for shapes and dtypes; maps come in the order of their memory, [N, H, W, 2C] when channels-last.
void glu_layer_norm(const Values &x, const Factors &weight, const Factors &bias, const Result &y, double eps,
                    bool channels_last) {
    const auto extent = [&](std::size_t axis) { return static_cast<std::int64_t>(y.shape(axis)); };
    const Map size = channels_last ? Map{extent(0), extent(3), extent(1) * extent(2), true}
                                   : Map{extent(0), extent(1), extent(2) * extent(3), false};
    const auto run = [&]<typename T>(const T *values) {
        nb::gil_scoped_release unlocked;
        glu_layer_norm_of(size, values, weight.data(), bias.data(), eps, static_cast<T *>(y.data()));
    };
    if (x.dtype() == nb::dtype<float>())
        run(static_cast<const float *>(x.data()));
    else if (x.dtype().code == static_cast<std::uint8_t>(nb::dlpack::dtype_code::Bfloat) && x.dtype().bits == 16)
        run(static_cast<const bfloat16 *>(x.data()));
    else
        throw std::invalid_argument("x must be float32 or bfloat16");
}

}  // namespace

std::int64_t Runs::blocks() const {
    const std::int64_t together = std::max<std::int64_t>(values_a_block / length, 1);
    return length >= values_a_block ? runs * ((length + values_a_block - 1) / values_a_block)
                                    : (runs + together - 1) / together;
}

Moments moments_of(const float *sample, const Runs &runs, std::int64_t block) {
    return block_moments(sample, runs, block);
}

Moments moments_of(const bfloat16 *sample, const Runs &runs, std::int64_t block) {
    return block_moments(sample, runs, block);
}

Moments merged(const Moments &a, const Moments &b) {
    const double count = a.count + b.count, share = b.count / count, apart = b.mean - a.mean;
    return {count, a.mean + apart * share, a.squares + b.squares + apart * apart * a.count * share};
}

Normal normal_of(const Moments &all, double eps) {
    // Rounding may leave constant values a tiny negative sum; NaN stays.
    const double squares = all.squares < 0 ? 0 : all.squares;
    const double inverse = 1 / std::sqrt(squares / all.count + eps);
    const float centre = static_cast<float>(all.mean);
    return {centre, static_cast<float>(inverse), static_cast<float>((all.mean - static_cast<double>(centre)) * inverse)};
}

void bind_glu_layer_norm(nb::module_ &module) {
    using namespace nb::literals;
    module.def("glu_layer_norm", &glu_layer_norm, "x"_a, "weight"_a, "bias"_a, "y"_a.noconvert(), "eps"_a,
               "channels_last"_a);
}

}  // namespace zellige
