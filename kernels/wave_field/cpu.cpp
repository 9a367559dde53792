// One pass over the map, in blocks of cells whose rows lie between the same two rows of factors.
#include <cstddef>
#include <stdexcept>
#include <string>
#include <vector>

#include <nanobind/ndarray.h>

#include "cpu/native.hpp"

namespace nb = nanobind;

namespace zellige {
namespace {

constexpr std::int64_t values_a_part = 1 << 15;  // enough to pay for handing a part to a thread
constexpr std::int64_t rows_a_group = 8, columns_a_block = 8;  // whose factors and results stay in the first cache

struct Field {
    std::int64_t samples, rows, columns, waves, noises, coarse, table_rows, table_columns;
    const float *down, *across, *noise;
    const std::int64_t *at_rows, *at_columns;

    std::int64_t factors() const { return 2 * waves + noises; }
    std::int64_t channels() const { return waves + noises; }
};

// Rows of the map between row `before` of the factors and the next one. The way between both has `period` parts; the
// first row of the group has gone `way` of them, and each further row 2 more. Under one row of factors it has none.
struct Group {
    std::int64_t row, rows, before, way, period;

    // The share that the next row has in the factors of a row of the group.
    float share(std::int64_t index) const {
        return period == 0 ? 0.0f : static_cast<float>(way + 2 * index) / static_cast<float>(period);
    }
};

std::vector<Group> groups_of(std::int64_t rows, std::int64_t coarse, std::int64_t every, std::int64_t first) {
    std::vector<Group> groups;
    for (std::int64_t row = 0; row < rows; row += groups.back().rows) {
        const std::int64_t most = std::min(rows_a_group, rows - row);
        if (coarse == 1) {
            groups.push_back({row, most, 0, 0, 0});
            continue;
        }
        const std::int64_t period = 2 * every, place = 2 * (first + row) + 1 - every, way = place % period;
        groups.push_back({row, std::min(most, (period - way + 1) / 2), place / period, way, period});
    }
    return groups;
}

ZELLIGE_INLINE void differences(const float *__restrict here, const float *__restrict following, std::int64_t size,
                                float *__restrict steps) {
    for (std::int64_t k = 0; k < size; ++k) steps[k] = following[k] - here[k];
}

// Calls body(i) for i in [0, size). Blocks of a fixed size become whole vectors without the checks around a loop of any
// length. For the few vectors of a cell these would take as long.
template <typename Body>
ZELLIGE_INLINE void by_vectors(std::int64_t size, const Body &body) {
    std::int64_t i = 0;
    for (; i + 16 <= size; i += 16)
        for (std::int64_t lane = 0; lane < 16; ++lane) body(i + lane);
    for (; i < size; ++i) body(i);
}

// Computes one cell. The steps lead from its factors to the next row's.
template <bool between>
ZELLIGE_INLINE void cell(const float *__restrict down, const float *__restrict factors, const float *__restrict steps,
                         float share, const float *__restrict noise, std::int64_t waves, std::int64_t noises,
                         float *__restrict into) {
    const auto factor = [&](std::int64_t k) __attribute__((always_inline)) {
        return between ? factors[k] + steps[k] * share : factors[k];
    };
    by_vectors(waves, [&](std::int64_t k) __attribute__((always_inline)) {
        into[k] = down[k] * factor(k) + down[waves + k] * factor(waves + k);
    });
    by_vectors(noises, [&](std::int64_t k) __attribute__((always_inline)) {
        into[waves + k] = noise[k] * factor(2 * waves + k);
    });
}

ZELLIGE_INLINE void store(const float *, std::int64_t, float *) {}

ZELLIGE_INLINE void store(const float *__restrict values, std::int64_t size, bfloat16 *__restrict into) {
    for (std::int64_t k = 0; k < size; ++k) narrow(values[k], into[k]);
}

ZELLIGE_INLINE float *room_for(float *, float *into) { return into; }
ZELLIGE_INLINE float *room_for(float *room, bfloat16 *) { return room; }

// Computes columns [begin, begin + columns) of a group's rows. The room holds their steps, and values of a row that are
// still to be rounded.
template <typename T>
ZELLIGE_INLINE void group_body(const Field &field, std::int64_t sample, const Group &group, std::int64_t begin,
                               std::int64_t columns, float *room, T *y) {
    const std::int64_t waves = field.waves, noises = field.noises, factors = field.factors();
    const std::int64_t channels = field.channels();
    const std::int64_t *at_columns = field.at_columns + sample * field.columns + begin;
    const float *here = field.across + ((sample * field.coarse + group.before) * field.columns + begin) * factors;
    const float *following = here + field.columns * factors;
    const bool moving = group.share(group.rows - 1) != 0.0f;
    if (moving) differences(here, following, columns * factors, room);
    for (std::int64_t row = 0; row < group.rows; ++row) {
        const std::int64_t of_map = sample * field.rows + group.row + row;
        const float *down = field.down + of_map * 2 * waves;
        const float *noise = field.noise + field.at_rows[of_map] * field.table_columns * noises;
        const float share = group.share(row);
        T *into = y + (of_map * field.columns + begin) * channels;
        // The next block's are asked for, because runs are too short for the processor to guess where they go on.
        const std::int64_t part = columns * factors / group.rows;
        if (moving) ask_for(following + columns * factors + row * part, part);
        ask_for(noise + (at_columns[0] + columns) * noises, columns * noises);
        ask_to_write(into + columns * channels, columns * channels);
        float *values = room_for(room + columns * factors, into);
        for (std::int64_t k = 0; k < columns; ++k) {
            const float *from = here + k * factors, *specks = noise + at_columns[k] * noises;
            float *to = values + k * channels;
            if (share != 0.0f)
                cell<true>(down, from, room + k * factors, share, specks, waves, noises, to);
            else
                cell<false>(down, from, room, share, specks, waves, noises, to);
        }
        store(values, columns * channels, into);
    }
}

ZELLIGE_CLONES void group_of(const Field &field, std::int64_t sample, const Group &group, std::int64_t begin,
                             std::int64_t columns, float *room, float *y) {
    group_body(field, sample, group, begin, columns, room, y);
}

ZELLIGE_CLONES void group_of(const Field &field, std::int64_t sample, const Group &group, std::int64_t begin,
                             std::int64_t columns, float *room, bfloat16 *y) {
    group_body(field, sample, group, begin, columns, room, y);
}

// A line of the cache. Vectors that lie across two lines take twice as long.
struct alignas(64) Line {
    float values[16];
};

template <typename T>
void run(const Field &field, std::int64_t every, std::int64_t first, T *y) {
    const std::vector<Group> groups = groups_of(field.rows, field.coarse, every, first);
    const auto count = static_cast<std::int64_t>(groups.size());
    const std::int64_t blocks = (field.columns + columns_a_block - 1) / columns_a_block;
    const std::int64_t values = rows_a_group * columns_a_block * field.channels();
    const auto room_size = static_cast<std::size_t>(columns_a_block * (field.factors() + field.channels()) / 16 + 1);
    parallel_for(field.samples * count * blocks, values_a_part / values + 1, [&](std::int64_t begin, std::int64_t end) {
        std::vector<Line> lines(room_size);
        float *room = reinterpret_cast<float *>(lines.data());
        for (std::int64_t k = begin; k < end; ++k) {
            const std::int64_t column = k % blocks * columns_a_block;
            group_of(field, k / blocks / count, groups[static_cast<std::size_t>(k / blocks % count)], column,
                     std::min(columns_a_block, field.columns - column), room, y);
        }
    });
}

void require_cells(const std::int64_t *cells, std::int64_t count, std::int64_t size, const char *name) {
    const bool known = std::all_of(cells, cells + count, [&](std::int64_t cell) { return 0 <= cell && cell < size; });
    if (!known) throw std::out_of_range(std::string(name) + " must lie in the table of noise, from 0 to its size - 1.");
}

using Floats = nb::ndarray<const float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Factors = nb::ndarray<const float, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Cells = nb::ndarray<const std::int64_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Result = nb::ndarray<nb::ndim<4>, nb::c_contig, nb::device::cpu>;

// op.py has checked shapes, dtypes and places of rows. The result comes as [N, S, T, K + L].
void wave_field(const Floats &down, const Factors &across, const Floats &noise, const Cells &rows, const Cells &columns,
                const Result &y, std::int64_t every, std::int64_t first) {
    const auto side = [](const auto &array, std::size_t axis) { return static_cast<std::int64_t>(array.shape(axis)); };
    const Field field{side(down, 0), side(down, 1), side(across, 2), side(down, 2) / 2, side(noise, 2), side(across, 1),
                      side(noise, 0), side(noise, 1), down.data(), across.data(), noise.data(), rows.data(),
                      columns.data()};
    require_cells(field.at_rows, field.samples * field.rows, field.table_rows, "rows");
    require_cells(field.at_columns, field.samples * field.columns, field.table_columns, "columns");
    nb::gil_scoped_release unlocked;
    if (y.dtype() == nb::dtype<float>())
        run(field, every, first, static_cast<float *>(y.data()));
    else if (y.dtype().code == static_cast<std::uint8_t>(nb::dlpack::dtype_code::Bfloat) && y.dtype().bits == 16)
        run(field, every, first, static_cast<bfloat16 *>(y.data()));
    else
        throw std::invalid_argument("y must be float32 or bfloat16");
}

}  // namespace

ZELLIGE_BINDINGS(module) {
    using namespace nb::literals;
    module.def("wave_field", &wave_field, "down"_a, "across"_a, "noise"_a, "rows"_a, "columns"_a, "y"_a.noconvert(),
               "every"_a, "first"_a);
}

}  // namespace zellige
