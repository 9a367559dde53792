// One pass over the small map: each of its rows gives two rows of the large map, each of two interleaved phases. If the
// activation normalises, a pass before it takes the statistics of the sample over all four phases.
#include <cstddef>
#include <stdexcept>
#include <vector>

#include <nanobind/ndarray.h>

#include "affine_relu/affine.hpp"
#include "glu_layer_norm/statistics.hpp"

namespace nb = nanobind;

namespace zellige {
namespace {

constexpr std::int64_t values_a_part = 1 << 14;  // enough to pay for handing a part to a thread

// The activation of one sample's values: normalised and gated, or scaled and shifted alone, with a centre of 0.
struct Activation {
    bool gated;
    Folded of;
};

// Neighbours of the large map come from two phases.
ZELLIGE_INLINE void store_pair(float first, float second, float *y) {
    y[0] = first;
    y[1] = second;
}

ZELLIGE_INLINE void store_pair(float first, float second, bfloat16 *y) { narrow_pair(first, second, y); }

// Interleaves two rows of one channel: the even and the odd columns. Gates lie `half` values behind their values.
template <typename T>
ZELLIGE_INLINE void plane_row_body(const T *__restrict even, const T *__restrict odd, std::int64_t columns,
                                   std::int64_t half, std::int64_t channel, const Activation &activation,
                                   T *__restrict y) {
    const float centre = activation.of.centre, scale = activation.of.scale[channel];
    const float offset = activation.of.offset[channel];
    if (activation.gated) {
        for (std::int64_t w = 0; w < columns; ++w)
            store_pair(gated<T>(widen(even[w]), widen(even[half + w]), centre, scale, offset),
                       gated<T>(widen(odd[w]), widen(odd[half + w]), centre, scale, offset), y + 2 * w);
    } else {
        for (std::int64_t w = 0; w < columns; ++w)
            store_pair(affine(widen(even[w]), scale, offset), affine(widen(odd[w]), scale, offset), y + 2 * w);
    }
}

ZELLIGE_CLONES void plane_row(const float *even, const float *odd, std::int64_t columns, std::int64_t half,
                              std::int64_t channel, const Activation &activation, float *y) {
    plane_row_body(even, odd, columns, half, channel, activation, y);
}

ZELLIGE_CLONES void plane_row(const bfloat16 *even, const bfloat16 *odd, std::int64_t columns, std::int64_t half,
                              std::int64_t channel, const Activation &activation, bfloat16 *y) {
    plane_row_body(even, odd, columns, half, channel, activation, y);
}

// Takes a row of pixels of the small map, each with its four phases side by side, to two rows of the large one.
template <typename T>
ZELLIGE_INLINE void pixel_row_body(const T *__restrict x, std::int64_t columns, std::int64_t channels,
                                   const Activation &activation, T *__restrict y) {
    const Folded of = activation.of;
    const std::int64_t of_phase = (activation.gated ? 2 : 1) * channels;
    for (std::int64_t w = 0; w < columns; ++w) {
        const T *__restrict pixel = x + w * 4 * of_phase;
        ask_for(pixel + ahead_of<T>(4 * of_phase), 4 * of_phase);
        for (std::int64_t phase = 0; phase < 4; ++phase) {
            const T *__restrict from = pixel + phase * of_phase;
            T *__restrict into = y + (phase / 2 * 2 * columns + 2 * w + phase % 2) * channels;
            if (activation.gated)
                gated_pixel(from, channels, of, into);
            else
                affine_pixel(from, channels, of.scale, of.offset, into);
        }
    }
}

ZELLIGE_CLONES void pixel_row(const float *x, std::int64_t columns, std::int64_t channels,
                              const Activation &activation, float *y) {
    pixel_row_body(x, columns, channels, activation, y);
}

ZELLIGE_CLONES void pixel_row(const bfloat16 *x, std::int64_t columns, std::int64_t channels,
                              const Activation &activation, bfloat16 *y) {
    pixel_row_body(x, columns, channels, activation, y);
}

struct Map {
    std::int64_t samples, channels, rows, columns;  // channels of the result, sides of the small map
    bool gated, channels_last;
};

// Takes rows `begin` to `end` of a sample: rows of the small map, or of all its channels' planes if it is NCHW.
template <typename T>
void rows_of(const Map &size, const T *x, std::int64_t begin, std::int64_t end, const Activation &activation, T *y) {
    const std::int64_t plane = size.rows * size.columns, of_phase = (size.gated ? 2 : 1) * size.channels;
    for (std::int64_t k = begin; k < end; ++k) {
        if (size.channels_last) {
            pixel_row(x + 4 * k * size.columns * of_phase, size.columns, size.channels, activation,
                      y + 4 * k * size.columns * size.channels);
            continue;
        }
        for (std::int64_t i = 0; i < 2; ++i) {
            const T *even = x + 2 * i * of_phase * plane + k * size.columns;
            plane_row(even, even + of_phase * plane, size.columns, size.channels * plane, k / size.rows, activation,
                      y + (2 * k + i) * 2 * size.columns);
        }
    }
}

template <typename T>
void phase_epilogue_of(const Map &size, const T *x, const float *weight, const float *bias, double eps, T *y) {
    const std::int64_t plane = size.rows * size.columns, values = 4 * size.channels * plane;  // of a result
    const std::int64_t rows = size.channels_last ? size.rows : size.channels * size.rows;
    const std::int64_t grain = values_a_part * rows / values + 1;
    if (!size.gated) {
        std::vector<float> room[2];
        const float *scales = prepared<T>(weight, size.samples, size.channels, size.channels_last, room[0]);
        const float *shifts = prepared<T>(bias, size.samples, size.channels, size.channels_last, room[1]);
        parallel_for(size.samples * rows, grain, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t k = begin; k < end;) {
                const std::int64_t n = k / rows, until = std::min(end, (n + 1) * rows);
                const Activation activation{false, {0, scales + n * size.channels, shifts + n * size.channels}};
                rows_of(size, x + n * values, k - n * rows, until - n * rows, activation, y + n * values);
                k = until;
            }
        });
        return;
    }
    const Runs runs = size.channels_last ? Runs{4 * plane, size.channels} : Runs{4, size.channels * plane};
    const auto fold = [&](const Normal &normal, float *room) {
        return Activation{true, folded<T>(normal, weight, bias, size.channels, size.channels_last, room)};
    };
    std::vector<float> factors(static_cast<std::size_t>(2 * size.samples * size.channels));
    if (values * static_cast<std::int64_t>(sizeof(T)) <= bytes_of_one_thread && size.samples > 1) {
        parallel_for(size.samples, values_a_part / values + 1, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t n = begin; n < end; ++n) {
                const T *sample = x + 2 * n * values;
                const Activation activation =
                    fold(normal_alone(sample, runs, eps), factors.data() + 2 * n * size.channels);
                rows_of(size, sample, 0, rows, activation, y + n * values);
            }
        });
        return;
    }
    std::vector<Moments> blocks(static_cast<std::size_t>(runs.blocks()));
    for (std::int64_t n = 0; n < size.samples; ++n) {
        const T *sample = x + 2 * n * values;
        const Activation activation =
            fold(normal_together(sample, runs, eps, blocks.data()), factors.data() + 2 * n * size.channels);
        parallel_for(rows, grain, [&](std::int64_t begin, std::int64_t end) {
            rows_of(size, sample, begin, end, activation, y + n * values);
        });
    }
}

using Values = nb::ndarray<nb::ro, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Factors = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Result = nb::ndarray<nb::ndim<4>, nb::c_contig, nb::device::cpu>;

// op.py has checked shapes and dtypes. Maps come in the order of their memory: channels at the end if channels-last.
void phase_epilogue(const Values &x, const Factors &weight, const Factors &bias, const Result &y, bool gated,
                    double eps, bool channels_last) {
    const auto extent = [&](std::size_t axis) { return static_cast<std::int64_t>(y.shape(axis)); };
    const Map size = channels_last ? Map{extent(0), extent(3), extent(1) / 2, extent(2) / 2, gated, true}
                                   : Map{extent(0), extent(1), extent(2) / 2, extent(3) / 2, gated, false};
    const auto run = [&]<typename T>(const T *values) {
        nb::gil_scoped_release unlocked;
        phase_epilogue_of(size, values, weight.data(), bias.data(), eps, static_cast<T *>(y.data()));
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
    module.def("phase_epilogue", &phase_epilogue, "x"_a, "weight"_a, "bias"_a, "y"_a.noconvert(), "gated"_a, "eps"_a,
               "channels_last"_a);
}

}  // namespace zellige
