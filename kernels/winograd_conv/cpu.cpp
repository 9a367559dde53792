// The work is shared out by tiles: each thread takes its own runs of them. If the matrices outgrow a core's cache, all
// threads take the same tiles, and each its own blocks of channels.
#include <cstddef>
#include <stdexcept>
#include <vector>

#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include "winograd_conv/tiles.hpp"

namespace nb = nanobind;

namespace zellige {
namespace {

using winograd::block;
using winograd::Epilogue;
using winograd::Kind;
using winograd::most;
using winograd::most_sources;
using winograd::paired;
using winograd::Shape;
using winograd::tall;
using winograd::Target;

constexpr std::int64_t own_cache = 3 << 18;    // bytes of a core's own cache that matrices may take
constexpr std::int64_t own_pair = 1 << 19;     // of it, those of one product of two blocks, and the tiles' sums
constexpr std::int64_t own_sums = 3 << 16;     // bytes of sums a thread works on at once
constexpr std::int64_t shared_sums = 1 << 22;  // bytes of sums that all threads work on at once

using Narrow = winograd::Float<6, 1>;  // 12 accumulators of 32 bytes, of 16 registers

ZELLIGE_CLONES void transform(const Shape &shape, const float *const *x, std::int64_t begin, std::int64_t end,
                              std::int64_t plane, const float *zeros, float *v) {
    winograd::by_form(shape, [&](auto form) __attribute__((always_inline)) {
        winograd::transform_body<winograd::Wide, decltype(form)>(shape, x, begin, end, plane, zeros, v);
    });
}

ZELLIGE_CLONES void multiply_wide(const Shape &shape, const float *v, const Target *targets, std::int64_t count,
                                  std::int64_t plane, const float *u, std::int64_t channel, std::int64_t blocks,
                                  const Epilogue &last, float *m, float *y) {
    winograd::by_form(shape, [&](auto form) __attribute__((always_inline)) {
        winograd::multiply_body<winograd::Wide, decltype(form)>(shape, v, targets, count, plane, u, channel, blocks,
                                                                last, m, y);
    });
}

ZELLIGE_CLONES void multiply_narrow(const Shape &shape, const float *v, const Target *targets, std::int64_t count,
                                    std::int64_t plane, const float *u, std::int64_t channel, std::int64_t blocks,
                                    const Epilogue &last, float *m, float *y) {
    winograd::by_form(shape, [&](auto form) __attribute__((always_inline)) {
        winograd::multiply_body<Narrow, decltype(form)>(shape, v, targets, count, plane, u, channel, blocks, last, m,
                                                        y);
    });
}

void multiply(const Shape &shape, const float *v, const Target *targets, std::int64_t count, std::int64_t plane,
              const float *u, std::int64_t channel, std::int64_t blocks, const Epilogue &last, float *m, float *y) {
#if defined(ZELLIGE_NARROW)  // tests the narrow form on processors with wide vectors
    constexpr bool wide = false;
#elif defined(__x86_64__)
    static const bool wide = __builtin_cpu_supports("avx512f");
#else
    constexpr bool wide = true;
#endif
    (wide ? multiply_wide : multiply_narrow)(shape, v, targets, count, plane, u, channel, blocks, last, m, y);
}

void transform(const Shape &shape, const bfloat16 *const *x, std::int64_t begin, std::int64_t end, std::int64_t plane,
               const bfloat16 *zeros, bfloat16 *v) {
    winograd::transform_dot(shape, x, begin, end, plane, zeros, v);
}

void multiply(const Shape &shape, const bfloat16 *v, const Target *targets, std::int64_t count, std::int64_t plane,
              const bfloat16 *u, std::int64_t channel, std::int64_t blocks, const Epilogue &last, float *m, bfloat16 *y) {
    winograd::multiply_dot(shape, v, targets, count, plane, u, channel, blocks, last, m, y);
}

// The places of tiles `begin` to `end`; `phase` is the one of four pixels that a cell becomes if the sides are doubled.
void find(const Shape &shape, const Epilogue &last, std::int64_t begin, std::int64_t end, std::int64_t phase,
          Target *targets) {
    const std::int64_t high = shape.whole(shape.rows), wide = shape.whole(shape.columns);
    const std::int64_t pixels = (high - 2 * shape.crop) * (wide - 2 * shape.crop);
    const int made = shape.out();
    const std::int64_t apart = shape.kind == Kind::doubled ? 2 : 1;  // pixels from a cell to its neighbour
    const auto inside = [&](std::int64_t at, std::int64_t size) { return at >= shape.crop && at < size - shape.crop; };
    const auto part = [](std::int64_t at, std::int64_t size) { return at == 0 ? 0 : at == size - 1 ? 2 : 1; };
    winograd::Place place(shape, begin);
    for (std::int64_t tile = begin; tile < end; ++tile, place.next(shape), ++targets) {
        const std::int64_t before = place.sample * (high - 2 * shape.crop);  // rows of other samples
        targets->sample = place.sample;
        for (int i = 0, cell = 0; i < made; ++i) {
            // Pixel 2h + p of phase p is cell h + p.
            const std::int64_t row = shape.first + (place.row * made + i) * apart - phase / 2;
            const std::int64_t from = (before + row - shape.crop) * (wide - 2 * shape.crop) - shape.crop;
            for (int j = 0; j < made; ++j, ++cell) {
                const std::int64_t column = shape.first + (place.column * made + j) * apart - phase % 2;
                targets->pixels[cell] = inside(row, high) && inside(column, wide) ? from + column : -1;
                targets->specks[cell] = targets->pixels[cell] + place.sample * (last.noise_stride - pixels);
                targets->places[cell] = last.border ? place.sample * 9 + 3 * part(row, high) + part(column, wide) : 0;
            }
        }
    }
}

// Memory that a thread keeps from call to call, because fresh pages would take longer than some maps. It starts at a
// cache line, because vectors across two lines take twice as long.
template <typename T>
T *kept(std::vector<T> &room, std::int64_t size) {
    constexpr std::int64_t line = 64;
    const std::size_t needed = static_cast<std::size_t>(size) + line / sizeof(T);
    if (room.size() < needed) room.resize(needed);
    const auto address = reinterpret_cast<std::uintptr_t>(room.data());
    return reinterpret_cast<T *>((address + line - 1) / line * line);
}

template <typename T>
void convolve(const Shape &shape, const Epilogue &last, std::int64_t samples, const T *const *x, const T *u, T *y) {
    const std::int64_t stored = shape.stored(), planes = shape.planes(), matrices = shape.matrices() * stored * block;
    const std::int64_t tiles = samples * shape.tile_rows * shape.tile_columns;
    const std::int64_t of_phase = (shape.outputs + block - 1) / block, blocks = shape.phases() * of_phase;
    // Blocks that are made together, none of two phases: two if a core's cache holds their matrices beside the sums.
    const std::int64_t taken = stored * (paired * block + most) * static_cast<std::int64_t>(sizeof(T));
    const std::int64_t most_together = taken <= own_pair ? paired : 1;
    const std::int64_t groups = (of_phase + most_together - 1) / most_together;
    const std::int64_t bytes = planes * stored * static_cast<std::int64_t>(sizeof(T));  // of a tile's sums
    const std::vector<T> zeros(stored);
    thread_local std::vector<T> sums;
    const auto multiplied = [&](const T *v, std::int64_t begin, std::int64_t end, std::int64_t plane, std::int64_t k) {
        thread_local std::vector<float> found;
        float *m = kept(found, paired * shape.products() * (most * block + winograd::gap));
        Target targets[most];
        const std::int64_t phase = k / groups, first = k % groups * most_together;
        find(shape, last, begin, end, phase, targets);
        multiply(shape, v, targets, end - begin, plane, u + (phase * of_phase + first) * matrices, first * block,
                 std::min(most_together, of_phase - first), last, m, y);
    };
    // The last product reads up to `tall` rows behind those of the tiles, so there is room for them.
    if (blocks * matrices * static_cast<std::int64_t>(sizeof(T)) <= own_cache) {
        const std::int64_t room = std::clamp<std::int64_t>(own_sums / bytes / tall * tall, tall, most);
        parallel_for(tiles, room, [&](std::int64_t begin, std::int64_t end) {
            const std::int64_t plane = room * stored + winograd::gap;
            T *v = kept(sums, planes * plane + tall * stored);
            transform(shape, x, begin, end, plane, zeros.data(), v);
            for (std::int64_t k = 0; k < shape.phases() * groups; ++k) multiplied(v, begin, end, plane, k);
        });
        return;
    }
    const std::int64_t room = std::min(std::max(shared_sums / bytes / most * most, most), tiles);
    const std::int64_t plane = room * stored + winograd::gap;
    T *v = kept(sums, planes * plane + tall * stored);
    for (std::int64_t first = 0; first < tiles; first += room) {
        const std::int64_t last = std::min(first + room, tiles), runs = (last - first + most - 1) / most;
        parallel_for(last - first, 8, [&](std::int64_t begin, std::int64_t end) {
            transform(shape, x, first + begin, first + end, plane, zeros.data(), v + begin * stored);
        });
        parallel_for(shape.phases() * groups * runs, 1, [&](std::int64_t begin, std::int64_t) {
            const std::int64_t from = first + begin % runs * most, count = std::min(most, last - from);
            multiplied(v + (from - first) * stored, from, from + count, plane, begin / runs);
        });
    }
}

using Values = nb::ndarray<nb::ro, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Matrices = nb::ndarray<nb::ro, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Factors = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Result = nb::ndarray<nb::ndim<4>, nb::c_contig, nb::device::cpu>;

template <typename T>
void convolve_any(const Shape &shape, const Epilogue &last, const std::vector<Values> &maps, const Matrices &u,
                  const Result &y) {
    const T *x[most_sources];
    for (std::size_t s = 0; s < maps.size(); ++s) x[s] = static_cast<const T *>(maps[s].data());
    const auto samples = static_cast<std::int64_t>(y.shape(0));
    nb::gil_scoped_release unlocked;
    convolve(shape, last, samples, x, static_cast<const T *>(u.data()), static_cast<T *>(y.data()));
}

// op.py has checked shapes and dtypes. Maps are [N, H, W, C]; style is [N, C], factor [N, K], noise [N or 1, pixels],
// and bias [1, K] or, for each of nine places, [9 N, K].
void winograd_conv(const std::vector<Values> &x, const Matrices &u, const std::optional<Factors> &style,
                   const std::optional<Factors> &factor, const std::optional<Factors> &noise, float strength,
                   const std::optional<Factors> &bias, const Result &y, int kind, int made, bool replicate,
                   std::int64_t crop, float slope, float gain, float clamp) {
    const auto extent = [](const auto &map, std::size_t axis) { return static_cast<std::int64_t>(map.shape(axis)); };
    if (x.empty() || x.size() > most_sources) throw std::invalid_argument("one to four maps can be joined");
    Shape shape{};
    shape.kind = static_cast<Kind>(kind), shape.made = made;
    shape.rows = extent(x[0], 1), shape.columns = extent(x[0], 2), shape.outputs = extent(y, 3);
    for (const Values &map : x) shape.from_source[shape.sources++] = extent(map, 3);
    shape.crop = crop, shape.replicate = replicate, shape.style = style ? style->data() : nullptr;
    shape.first = shape.kind == Kind::upsampled ? crop / 2 * 2 : crop;
    // The cells of a doubled map are those of the map and one more; each pixel is a cell of one phase.
    const auto tiles = [&](std::size_t axis) {
        const bool doubled = shape.kind == Kind::doubled || shape.kind == Kind::spread;
        const std::int64_t cells = doubled ? extent(x[0], axis) + 1 : extent(y, axis) + crop - shape.first;
        return (cells + made - 1) / made;
    };
    shape.tile_rows = tiles(1), shape.tile_columns = tiles(2);
    const auto given = [](const std::optional<Factors> &rows) { return rows ? rows->data() : nullptr; };
    const bool border = bias && extent(*bias, 0) != 1;
    const std::int64_t stride = noise && extent(*noise, 0) != 1 ? extent(*noise, 1) : 0;
    const Epilogue last{given(factor), given(noise), given(bias), stride, strength, slope, gain, clamp, border};
    if (x[0].dtype() == nb::dtype<float>())
        convolve_any<float>(shape, last, x, u, y);
    else if (x[0].dtype().code == static_cast<std::uint8_t>(nb::dlpack::dtype_code::Bfloat) && x[0].dtype().bits == 16)
        convolve_any<bfloat16>(shape, last, x, u, y);
    else
        throw std::invalid_argument("x must be float32 or bfloat16");
}

}  // namespace

ZELLIGE_BINDINGS(module) {
    using namespace nb::literals;
    module.def("winograd_conv", &winograd_conv, "x"_a, "u"_a, "style"_a.none(), "factor"_a.none(), "noise"_a.none(),
               "strength"_a, "bias"_a.none(), "y"_a, "kind"_a, "made"_a, "replicate"_a, "crop"_a, "slope"_a, "gain"_a,
               "clamp"_a);
    module.def("has_bfloat16_dot", &winograd::has_dot);
}

}  // namespace zellige
