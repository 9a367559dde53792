// The weighted mean of overlapping patches, one tile of the picture at a time. The tile's sums stay in the second cache
// while all patches that touch it are added in index order. Threads take bands of tiles.
#include <algorithm>
#include <cstddef>
#include <new>
#include <stdexcept>
#include <vector>

#include <nanobind/ndarray.h>

#include "cpu/native.hpp"

namespace nb = nanobind;

namespace zellige {
namespace {

// A tile's sums take about 256 KiB. Most patches are smaller than a tile, so few are cut.
constexpr std::int64_t tile_rows = 32, tile_columns = 512;

// A row of a patch is either `channels` planes of single values (NCHW) or one plane of interleaved pixels
// (channels-last). Sums are kept in the same order, so that values are added to them as flat, contiguous arrays.
struct RowLayout {
    std::int64_t planes;
    std::int64_t lanes;  // values of one pixel next to each other: planes * lanes = channels
};

struct PatchStrides {
    std::int64_t patch, plane, row;
};

// The places where the sums of a part of a tile begin: rows of `planes` times `row` sums, and of `row` weights.
struct Sums {
    float *values, *weights;
    std::int64_t planes, row;
};

ZELLIGE_INLINE void add_weights(float row_weight, const float *__restrict window, std::int64_t size,
                                float *__restrict weights) {
    for (std::int64_t i = 0; i < size; ++i) weights[i] += row_weight * window[i];
}

template <typename T>
ZELLIGE_INLINE void add_values(float row_weight, const float *__restrict window, const T *__restrict values,
                               std::int64_t size, float *__restrict sums) {
    for (std::int64_t i = 0; i < size; ++i) sums[i] += (row_weight * window[i]) * widen(values[i]);
}

// Adds the part of a patch that lies in a tile: `rows` rows of `size` values in each plane. It fetches the plane after
// the one that it adds, or the `next` patch's first, because planes are too short for the processor to see a stream.
template <typename T>
ZELLIGE_INLINE void add_patch_body(const Sums &of, const float *window_rows, const float *window_columns,
                                   const T *patch, const T *next, const PatchStrides &strides, std::int64_t rows,
                                   std::int64_t size) {
    const Sums sums = of;
    for (std::int64_t row = 0; row < rows; ++row)
        add_weights(window_rows[row], window_columns, size, sums.weights + row * sums.row);
    // Planes are added one by one, because the rows of a plane lie next to each other.
    for (std::int64_t plane = 0; plane < sums.planes; ++plane) {
        const T *from = patch + plane * strides.plane;
        const T *behind = plane + 1 < sums.planes ? from + strides.plane : next;
        for (std::int64_t row = 0; row < rows; ++row) {
            ask_for_later(behind + row * strides.row, size);
            add_values(window_rows[row], window_columns, from + row * strides.row, size,
                       sums.values + (row * sums.planes + plane) * sums.row);
        }
    }
}

ZELLIGE_CLONES void add_patch(const Sums &sums, const float *window_rows, const float *window_columns,
                              const float *patch, const float *next, const PatchStrides &strides, std::int64_t rows, std::int64_t size) {
    add_patch_body(sums, window_rows, window_columns, patch, next, strides, rows, size);
}

ZELLIGE_CLONES void add_patch(const Sums &sums, const float *window_rows, const float *window_columns,
                              const bfloat16 *patch, const bfloat16 *next, const PatchStrides &strides, std::int64_t rows,
                              std::int64_t size) {
    add_patch_body(sums, window_rows, window_columns, patch, next, strides, rows, size);
}

ZELLIGE_CLONES void add_patch(const Sums &sums, const float *window_rows, const float *window_columns,
                              const float16 *patch, const float16 *next, const PatchStrides &strides, std::int64_t rows, std::int64_t size) {
    add_patch_body(sums, window_rows, window_columns, patch, next, strides, rows, size);
}

ZELLIGE_INLINE float mean_of(float sum, float total) { return total > 0.0f ? sum / total : 0.0f; }

// round_half_even((value + 1) * 127.5) within a byte. Adding 1.5 * 2^23 leaves no bit for a fraction, so the addition
// rounds half to even. Unlike std::nearbyint, it is a vector operation on every instruction set. The first comparison
// is false for NaN, which becomes 0.
ZELLIGE_INLINE std::uint8_t byte_of(float value) {
    const float scaled = (value + 1.0f) * 127.5f;
    const float positive = scaled > 0.0f ? scaled : 0.0f;
    const float limited = positive < 255.0f ? positive : 255.0f;
    return static_cast<std::uint8_t>(static_cast<std::int32_t>((limited + 12582912.0f) - 12582912.0f));
}

template <int planes, typename T>
ZELLIGE_INLINE void interleave(const T *__restrict row, std::int64_t size, T *__restrict picture) {
    for (std::int64_t i = 0; i < size; ++i)
        for (int plane = 0; plane < planes; ++plane) picture[i * planes + plane] = row[plane * size + i];
}

// A constant number of planes lets the compiler shuffle whole vectors.
template <typename T>
ZELLIGE_INLINE void store(const T *row, std::int64_t planes, std::int64_t size, T *picture) {
    if (planes == 1) interleave<1>(row, size, picture);
    if (planes == 2) interleave<2>(row, size, picture);
    if (planes == 3) interleave<3>(row, size, picture);
    if (planes == 4) interleave<4>(row, size, picture);
}

ZELLIGE_CLONES void finish_row(const float *__restrict sums, const float *__restrict totals, std::int64_t planes,
                               std::int64_t stride, std::int64_t size, float *__restrict row,
                               float *__restrict picture) {
    for (std::int64_t plane = 0; plane < planes; ++plane)
        for (std::int64_t i = 0; i < size; ++i) row[plane * size + i] = mean_of(sums[plane * stride + i], totals[i]);
    store(row, planes, size, picture);
}

ZELLIGE_CLONES void finish_row(const float *__restrict sums, const float *__restrict totals, std::int64_t planes,
                               std::int64_t stride, std::int64_t size, std::uint8_t *__restrict row,
                               std::uint8_t *__restrict picture) {
    for (std::int64_t plane = 0; plane < planes; ++plane)
        for (std::int64_t i = 0; i < size; ++i)
            row[plane * size + i] = byte_of(mean_of(sums[plane * stride + i], totals[i]));
    store(row, planes, size, picture);
}

struct Geometry {
    std::int64_t patches, channels, patch_rows, patch_columns, height, width;
};

template <typename T, typename Pixel>
void blend(const Geometry &size, RowLayout layout, PatchStrides strides, const T *patches,
           const std::int64_t *positions, const float *window_rows, const float *window_columns, Pixel *picture) {
    std::vector<float> window(static_cast<std::size_t>(size.patch_columns * layout.lanes));
    for (std::size_t i = 0; i < window.size(); ++i) window[i] = window_columns[i / layout.lanes];
    const std::int64_t row = std::min(size.width, tile_columns) * layout.lanes;
    const auto blend_band = [&](std::int64_t top) {
        const std::int64_t bottom = std::min(top + tile_rows, size.height);
        std::vector<float> values(static_cast<std::size_t>((bottom - top) * layout.planes * row));
        std::vector<float> weights(static_cast<std::size_t>((bottom - top) * row));
        std::vector<Pixel> finished(static_cast<std::size_t>(layout.planes * row));
        std::vector<std::int64_t> near;
        for (std::int64_t n = 0; n < size.patches; ++n) {
            const std::int64_t y = positions[2 * n], x = positions[2 * n + 1];
            // Positions may be any int64, so they are compared before anything is added to them.
            if (y < bottom && y > top - size.patch_rows && x < size.width && x > -size.patch_columns) near.push_back(n);
        }
        for (std::int64_t left = 0; left < size.width; left += tile_columns) {
            const std::int64_t right = std::min(left + tile_columns, size.width);
            // -0.0 is the neutral element: -0.0 + x is x for every x, and 0.0 + -0.0 would lose a sign.
            std::fill(values.begin(), values.end(), -0.0f);
            std::fill(weights.begin(), weights.end(), 0.0f);
            for (std::size_t i = 0; i < near.size(); ++i) {
                const std::int64_t n = near[i], next = near[std::min(i + 1, near.size() - 1)];
                const std::int64_t y = positions[2 * n], x = positions[2 * n + 1];
                const std::int64_t y_begin = std::max(y, top), y_end = std::min(y + size.patch_rows, bottom);
                const std::int64_t x_begin = std::max(x, left), x_end = std::min(x + size.patch_columns, right);
                if (x_begin >= x_end) continue;
                const std::int64_t at = (x_begin - left) * layout.lanes, within = (x_begin - x) * layout.lanes;
                const Sums sums{values.data() + (y_begin - top) * layout.planes * row + at,
                                weights.data() + (y_begin - top) * row + at, layout.planes, row};
                const std::int64_t inside = (y_begin - y) * strides.row + within;
                add_patch(sums, window_rows + (y_begin - y), window.data() + within,
                          patches + n * strides.patch + inside, patches + next * strides.patch + inside, strides,
                          y_end - y_begin, (x_end - x_begin) * layout.lanes);
            }
            for (std::int64_t y = top; y < bottom; ++y)
                finish_row(values.data() + (y - top) * layout.planes * row, weights.data() + (y - top) * row,
                           layout.planes, row, (right - left) * layout.lanes, finished.data(),
                           picture + (y * size.width + left) * size.channels);
        }
    };
    std::atomic<bool> failed = false;
    parallel_for(size.height, tile_rows, [&](std::int64_t begin, std::int64_t) {
        try {
            blend_band(begin);
        } catch (const std::bad_alloc &) {  // the error must not leave its thread
            failed = true;
        }
    });
    if (failed) throw std::bad_alloc();
}

using Patches = nb::ndarray<nb::ro, nb::ndim<4>, nb::device::cpu>;
using Positions = nb::ndarray<const std::int64_t, nb::shape<-1, 2>, nb::c_contig, nb::device::cpu>;
using Window = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Picture = nb::ndarray<nb::ndim<3>, nb::c_contig, nb::device::cpu>;

// op.py has checked the shapes, and that pixels are contiguous along the row in one of the two layouts.
void feather_blend(const Patches &patches, const Positions &positions, const Window &window_rows,
                   const Window &window_columns, const Picture &picture) {
    const auto extent = [](const auto &array, std::size_t axis) {
        return static_cast<std::int64_t>(array.shape(axis));
    };
    const Geometry size{extent(patches, 0), extent(patches, 1), extent(patches, 2),
                        extent(patches, 3), extent(picture, 0), extent(picture, 1)};
    const bool planar = size.patch_columns == 1 || patches.stride(3) == 1;
    const RowLayout layout = planar ? RowLayout{size.channels, 1} : RowLayout{1, size.channels};
    const PatchStrides strides{patches.stride(0), patches.stride(1), patches.stride(2)};

    const auto run = [&]<typename T>(const T *values) {
        nb::gil_scoped_release unlocked;
        const auto into = [&](auto *pixels) {
            blend(size, layout, strides, values, positions.data(), window_rows.data(), window_columns.data(), pixels);
        };
        if (picture.dtype() == nb::dtype<std::uint8_t>())
            into(static_cast<std::uint8_t *>(picture.data()));
        else
            into(static_cast<float *>(picture.data()));
    };
    const nb::dlpack::dtype dtype = patches.dtype();
    if (dtype == nb::dtype<float>())
        run(static_cast<const float *>(patches.data()));
    else if (dtype.code == static_cast<std::uint8_t>(nb::dlpack::dtype_code::Bfloat) && dtype.bits == 16)
        run(static_cast<const bfloat16 *>(patches.data()));
    else if (dtype.code == static_cast<std::uint8_t>(nb::dlpack::dtype_code::Float) && dtype.bits == 16)
        run(static_cast<const float16 *>(patches.data()));
    else
        throw std::invalid_argument("patches must be float32, float16 or bfloat16");
}

}  // namespace

ZELLIGE_BINDINGS(module) {
    using namespace nb::literals;
    module.def("feather_blend", &feather_blend, "patches"_a, "positions"_a, "window_rows"_a, "window_columns"_a,
               "picture"_a.noconvert());
}

}  // namespace zellige
