// Mean and deviation of half the channels of a sample, and what becomes of a value, for the kernels that need both.
#pragma once

#include <cstdint>

#include "native.hpp"
#include "vector_math.hpp"

namespace zellige {

// What normalises a sample: (value - centre) * inverse - shift. The mean is centre plus a rest that float32 cannot hold
// beside it; it is in the shift, so that a mean far above the deviation costs no precision.
struct Normal {
    float centre, inverse, shift;
};

template <typename T>
ZELLIGE_INLINE void gated(T left, T right, const Normal &normal, float weight, float bias, T &y) {
    const float value = ((widen(left) - normal.centre) * normal.inverse - normal.shift) * weight + bias;
    narrow(value * sigmoid_of(widen(right)), y);
}

// Parts of pixels come and go too quickly for the processor to see a stream in them: asks for the values that lie
// about 2 KiB further on. Addresses behind the end do no harm.
template <typename T>
ZELLIGE_INLINE void ask_ahead(const T *from, std::int64_t size, std::int64_t pixel) {
    constexpr std::int64_t line = 64 / sizeof(T);
    const std::int64_t ahead = (32 * line / pixel + 1) * pixel;
    for (std::int64_t i = 0; i < size; i += line) __builtin_prefetch(from + ahead + i);
}

// Number of values, their mean, and the sum of the squares of their distances from it.
struct Moments {
    double count = 0, mean = 0, squares = 0;
};

// Where the values of one sample lie: `runs` times `length` that count, then as many that do not. The values are taken
// in blocks of a fixed size, so that neither the order of threads nor their number changes a bit.
struct Runs {
    std::int64_t runs, length;

    std::int64_t values() const { return runs * length; }
    std::int64_t blocks() const;
};

Moments moments_of(const float *sample, const Runs &runs, std::int64_t block);
Moments moments_of(const bfloat16 *sample, const Runs &runs, std::int64_t block);
Moments merged(const Moments &a, const Moments &b);
Normal normal_of(const Moments &all, double eps);

constexpr std::int64_t values_a_block = 1 << 12;
constexpr std::int64_t bytes_of_one_thread = 1 << 19;  // a first half that stays in the cache of one core

// Statistics of one sample by the calling thread.
template <typename T>
Normal normal_alone(const T *sample, const Runs &runs, double eps) {
    Moments all;
    for (std::int64_t block = 0; block < runs.blocks(); ++block) all = merged(all, moments_of(sample, runs, block));
    return normal_of(all, eps);
}

// The same, to the bit, by all threads; `room` has runs.blocks() places.
template <typename T>
Normal normal_together(const T *sample, const Runs &runs, double eps, Moments *room) {
    parallel_for(runs.blocks(), 4, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t block = begin; block < end; ++block) room[block] = moments_of(sample, runs, block);
    });
    Moments all;
    for (std::int64_t block = 0; block < runs.blocks(); ++block) all = merged(all, room[block]);
    return normal_of(all, eps);
}

}  // namespace zellige
