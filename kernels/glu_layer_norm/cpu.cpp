// Two passes over each sample: the statistics of the first half, then one that normalises it and applies the gates in
// the second half while the first is still in a cache. Small samples go to one thread each, large ones to all threads.
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
constexpr std::int64_t values_asked_for = 1 << 10;  // fetched at a time, between computations
constexpr std::int64_t lanes = 32;               // sums side by side; fixed, so that all clones agree

struct Sums {
    float distances[lanes] = {}, squares[lanes] = {};
};

ZELLIGE_INLINE void add(float distance, std::int64_t lane, Sums &sums) {
    sums.distances[lane] += distance;
    sums.squares[lane] += distance * distance;
}

ZELLIGE_INLINE void add_lanes(const float *__restrict x, float pivot, Sums &sums) {
    for (std::int64_t lane = 0; lane < lanes; ++lane) add(x[lane] - pivot, lane, sums);
}

ZELLIGE_INLINE void add_lanes(const bfloat16 *__restrict x, float pivot, Sums &sums) {
    for (std::int64_t k = 0; k < lanes / 2; ++k) {
        const Pair value = widen_pair(x + 2 * k);
        add(value.first - pivot, k, sums);
        add(value.second - pivot, lanes / 2 + k, sums);
    }
}

ZELLIGE_INLINE double total(const float *values) {
    double sum = 0;
    for (std::int64_t lane = 0; lane < lanes; ++lane) sum += static_cast<double>(values[lane]);
    return sum;
}

// Takes the moments in one pass, around a pivot: the mean of a few values from all over the block. Outliers that pull
// the pivot away from the block's mean add to the variance too. So at worst the squares have two digits fewer than with
// a second pass. They have as many if the few values are spread like the rest.
template <typename T>
ZELLIGE_INLINE Moments moments_body(const T *__restrict x, std::int64_t runs, std::int64_t size, std::int64_t stride) {
    const std::int64_t all = runs * size, few = std::min(all, lanes);
    const std::int64_t step = all / few, whole = step / size, rest_of_step = step % size;
    float pivot = 0.0f;
    for (std::int64_t i = 0, run = 0, at = 0; i < few; ++i) {
        pivot += widen(x[run * stride + at]);
        run += whole;
        at += rest_of_step;
        if (at >= size) {
            at -= size;
            ++run;
        }
    }
    pivot /= static_cast<float>(few);
    Sums sums;
    for (std::int64_t run = 0; run < runs; ++run) {
        const T *__restrict from = x + run * stride;
        // The whole pixel is fetched: its second half is needed next, and much of it comes with the first anyway.
        if (stride > 0) ask_for(from + ahead_of<T>(stride), stride);
        std::int64_t i = 0;
        for (; i + lanes <= size; i += lanes) add_lanes(from + i, pivot, sums);
        for (std::int64_t lane = 0; i + lane < size; ++lane) add(widen(from[i + lane]) - pivot, lane, sums);
    }
    const double count = static_cast<double>(all), sum = total(sums.distances), rest = sum / count;
    return {count, static_cast<double>(pivot) + rest, total(sums.squares) - sum * rest};
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

// Computes values `begin` to `end` of an NCHW sample, whose second half lies `half` values behind the first. It fetches
// values that lie `ahead` further on.
template <typename T>
ZELLIGE_INLINE void planes_body(const T *x, std::int64_t begin, std::int64_t end, std::int64_t plane, std::int64_t half,
                                std::int64_t ahead, const Folded &of, T *y) {
    for (std::int64_t at = begin; at < end;) {
        const std::int64_t c = at / plane, until = std::min({end, (c + 1) * plane, at + values_asked_for});
        ask_for(x + at + ahead, until - at);
        gated_run(x + at, x + half + at, until - at, of.centre, of.scale[c], of.offset[c], y + at);
        at = until;
    }
}

ZELLIGE_CLONES void planes_of(const float *x, std::int64_t begin, std::int64_t end, std::int64_t plane,
                              std::int64_t half, std::int64_t ahead, const Folded &of, float *y) {
    planes_body(x, begin, end, plane, half, ahead, of, y);
}

ZELLIGE_CLONES void planes_of(const bfloat16 *x, std::int64_t begin, std::int64_t end, std::int64_t plane,
                              std::int64_t half, std::int64_t ahead, const Folded &of, bfloat16 *y) {
    planes_body(x, begin, end, plane, half, ahead, of, y);
}

// Computes `pixels` pixels of all channels, each with its first half before its second. It fetches values that lie
// `ahead` further on.
template <typename T>
ZELLIGE_INLINE void pixels_body(const T *x, std::int64_t pixels, std::int64_t channels, std::int64_t ahead,
                                const Folded &of, T *y) {
    const Folded factors = of;
    for (std::int64_t pixel = 0; pixel < pixels; ++pixel) {
        const T *from = x + 2 * pixel * channels;
        ask_for(from + ahead, 2 * channels);
        gated_pixel(from, channels, factors, y + pixel * channels);
    }
}

ZELLIGE_CLONES void pixels_of(const float *x, std::int64_t pixels, std::int64_t channels, std::int64_t ahead,
                              const Folded &of, float *y) {
    pixels_body(x, pixels, channels, ahead, of, y);
}

ZELLIGE_CLONES void pixels_of(const bfloat16 *x, std::int64_t pixels, std::int64_t channels, std::int64_t ahead,
                              const Folded &of, bfloat16 *y) {
    pixels_body(x, pixels, channels, ahead, of, y);
}

struct Map {
    std::int64_t samples, channels, pixels;  // channels of one half
    bool channels_last;
};

template <typename T>
void glu_layer_norm_of(const Map &size, const T *x, const float *weight, const float *bias, double eps, T *y) {
    const std::int64_t values = size.channels * size.pixels;
    const Runs runs = size.channels_last ? Runs{size.pixels, size.channels} : Runs{1, values};
    // A sample is divided into its pixels if it is channels-last, else into its values.
    const std::int64_t parts = size.channels_last ? size.pixels : values;
    const auto normalise = [&](std::int64_t sample, const Folded &of, std::int64_t begin, std::int64_t end) {
        const T *from = x + 2 * sample * values;
        T *into = y + sample * values;
        // This pass computes longer than it reads, so the next sample can be fetched meanwhile.
        const bool last = sample + 1 == size.samples;
        if (size.channels_last)
            pixels_of(from + 2 * begin * size.channels, end - begin, size.channels,
                      last ? ahead_of<T>(2 * size.channels) : 2 * values, of, into + begin * size.channels);
        else
            planes_of(from, begin, end, size.pixels, values, last ? 0 : 2 * values, of, into);
    };
    const auto fold = [&](const Normal &normal, float *room) {
        return folded<T>(normal, weight, bias, size.channels, size.channels_last, room);
    };
    // The factors are those of all samples, the blocks below those of one.
    std::vector<float> factors(static_cast<std::size_t>(2 * size.samples * size.channels));
    if (values * static_cast<std::int64_t>(sizeof(T)) <= bytes_of_one_thread && size.samples > 1) {
        parallel_for(size.samples, values_a_part / values + 1, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t n = begin; n < end; ++n) {
                const Normal normal = normal_alone(x + 2 * n * values, runs, eps);
                normalise(n, fold(normal, factors.data() + 2 * n * size.channels), 0, parts);
            }
        });
        return;
    }
    std::vector<Moments> blocks(static_cast<std::size_t>(runs.blocks()));
    for (std::int64_t n = 0; n < size.samples; ++n) {
        const Normal normal = normal_together(x + 2 * n * values, runs, eps, blocks.data());
        const Folded of = fold(normal, factors.data() + 2 * n * size.channels);
        parallel_for(parts, values_a_part * parts / values,
                     [&](std::int64_t begin, std::int64_t end) { normalise(n, of, begin, end); });
    }
}

using Values = nb::ndarray<nb::ro, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Factors = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Result = nb::ndarray<nb::ndim<4>, nb::c_contig, nb::device::cpu>;

// op.py has checked shapes and dtypes. Maps come in the order of their memory: [N, H, W, 2C] if channels-last.
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
    const double rest = all.mean - static_cast<double>(centre);
    return {centre, static_cast<float>(inverse), static_cast<float>(rest * inverse)};
}

ZELLIGE_BINDINGS(module) {
    using namespace nb::literals;
    module.def("glu_layer_norm", &glu_layer_norm, "x"_a, "weight"_a, "bias"_a, "y"_a.noconvert(), "eps"_a,
               "channels_last"_a);
}

}  // namespace zellige
