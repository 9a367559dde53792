// Everything that native kernels share: the choice of an instruction set, storage types, threads and bindings.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdint>
#include <limits>

#include <nanobind/nanobind.h>

// Compiles a function once for each instruction set; the loader picks the widest that the processor has. The attribute
// does not reach into callees, so a function that carries it must be a plain one, neither a template nor a lambda, and
// all of its work must be in its body or in ZELLIGE_INLINE functions.
#if defined(__x86_64__) && defined(__gnu_linux__)
#define ZELLIGE_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define ZELLIGE_CLONES
#endif
#define ZELLIGE_INLINE static inline __attribute__((always_inline))

namespace zellige {

struct bfloat16 {
    std::uint16_t bits;
};

struct float16 {
    std::uint16_t bits;
};

ZELLIGE_INLINE float widen(float value) { return value; }

ZELLIGE_INLINE float widen(bfloat16 value) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(value.bits) << 16);
}

// Widens with integer arithmetic, because AVX2 does not include the conversion instruction. The 15 low bits move to the
// place of a float32's exponent and mantissa. The exponent is then 112 too small; the product repairs it exactly, for
// subnormals too. Infinities and NaN need the largest exponent instead.
ZELLIGE_INLINE float widen(float16 value) {
    const std::uint32_t magnitude = (value.bits & 0x7fffu) << 13;
    const std::uint32_t sign = (value.bits & 0x8000u) << 16;
    const std::uint32_t finite = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) * 0x1p112f);
    const std::uint32_t special = magnitude | 0x7f800000u;
    return std::bit_cast<float>((magnitude < 0x0f800000u ? finite : special) | sign);
}

// Rounds to the nearest, half to even. NaN stays NaN.
ZELLIGE_INLINE void narrow(float value, float &into) { into = value; }

ZELLIGE_INLINE void narrow(float value, bfloat16 &into) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    into.bits = static_cast<std::uint16_t>(value == value ? rounded : 0x7fc0u);
}

// Fetches values that are needed soon and whose addresses the processor cannot guess. Addresses behind the end of an
// array do no harm.
template <typename T>
ZELLIGE_INLINE void ask_for(const T *from, std::int64_t size) {
    for (std::int64_t i = 0; i < size; i += 64 / sizeof(T)) __builtin_prefetch(from + i);
}

// Fetches values into the second cache, because in the first they would take the place of values in use.
template <typename T>
ZELLIGE_INLINE void ask_for_later(const T *from, std::int64_t size) {
    for (std::int64_t i = 0; i < size; i += 64 / sizeof(T)) __builtin_prefetch(from + i, 0, 2);
}

template <typename T>
ZELLIGE_INLINE void ask_to_write(T *from, std::int64_t size) {
    for (std::int64_t i = 0; i < size; i += 64 / sizeof(T)) __builtin_prefetch(from + i, 1);
}

// Two neighbours. Read as one word, they are widened with one shift and one mask; singly, each takes a conversion and a
// shift.
struct Pair {
    float first, second;
};

ZELLIGE_INLINE Pair widen_pair(const bfloat16 *from) {
    static_assert(std::endian::native == std::endian::little);
    std::uint32_t word;
    __builtin_memcpy(&word, from, sizeof word);
    return {std::bit_cast<float>(word << 16), std::bit_cast<float>(word & 0xffff0000u)};
}

// The place of a channel's factor when neighbouring channels are computed together: factors of even channels come
// first.
ZELLIGE_INLINE std::int64_t paired_place(std::int64_t channel, std::int64_t channels) {
    return channels % 2 == 0 ? channel % 2 * (channels / 2) + channel / 2 : channel;
}

// Replaces any NaN by one that narrow_pair can take. Factors pass through here, and narrow_pair gets their products.
ZELLIGE_INLINE float plain_nan(float value) { return value == value ? value : std::numeric_limits<float>::quiet_NaN(); }

// Rounds as narrow does. A NaN must have 16 low bits of 0, as those of bfloat16 and of arithmetic have.
ZELLIGE_INLINE void narrow_pair(float first, float second, bfloat16 *into) {
    const auto rounded = [](float value) __attribute__((always_inline)) {
        const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
        return bits + 0x7fffu + ((bits >> 16) & 1u);
    };
    const std::uint32_t word = (rounded(first) >> 16) | (rounded(second) & 0xffff0000u);
    __builtin_memcpy(into, &word, sizeof word);
}

// Values as float32, a slice at a time: the map itself if it is float32, else a copy in the first cache. The copies are
// there because the compiler often finds no vector code for loops that mix two types of storage.
template <typename T>
struct Slice {
    static constexpr std::int64_t most = 256;
    float room[most];

    ZELLIGE_INLINE const float *read(Slice &slice, const T *from, std::int64_t size) {
        for (std::int64_t i = 0; i < size; ++i) slice.room[i] = widen(from[i]);
        return slice.room;
    }
    ZELLIGE_INLINE float *begin(Slice &slice, T *) { return slice.room; }
    ZELLIGE_INLINE void end(const Slice &slice, std::int64_t size, T *into) {
        for (std::int64_t i = 0; i < size; ++i) narrow(slice.room[i], into[i]);
    }
};

template <>
struct Slice<float> {
    static constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();

    ZELLIGE_INLINE const float *read(Slice &, const float *from, std::int64_t) { return from; }
    ZELLIGE_INLINE float *begin(Slice &, float *into) { return into; }
    ZELLIGE_INLINE void end(const Slice &, std::int64_t, float *) {}
};

// Threads are torch's own: a kernel enters its OpenMP pool through the function that a compiler would have called.
// kernels/op/dispatch.py finds the address of that function. Null means that everything runs on the calling thread.
using EnterParallel = void (*)(void (*body)(void *), void *data, unsigned threads, unsigned flags);
extern EnterParallel enter_parallel;

// The grain of one pass over much memory, `least` or more. A thread that goes on where its last part ended reads faster
// than one that leaps, so parts are few. With 32 of them threads still get equal shares.
inline std::int64_t long_grain(std::int64_t count, std::int64_t least) { return std::max(least, count / 32); }

// Calls body(begin, end) for parts of [0, count), `grain` each, on as many threads as torch uses. The parts do not
// depend on the number of threads. The body must not throw.
template <typename Body>
void parallel_for(std::int64_t count, std::int64_t grain, const Body &body) {
    grain = std::max<std::int64_t>(grain, 1);
    if (count <= grain || enter_parallel == nullptr) {
        for (std::int64_t begin = 0; begin < count; begin += grain) body(begin, std::min(begin + grain, count));
        return;
    }
    struct Shared {
        const Body &body;
        const std::int64_t count, grain;
        std::atomic<std::int64_t> next;
    } shared{body, count, grain, 0};
    enter_parallel(
        [](void *data) {
            Shared &work = *static_cast<Shared *>(data);
            for (std::int64_t begin; (begin = work.next.fetch_add(work.grain)) < work.count;)
                work.body(begin, std::min(begin + work.grain, work.count));
        },
        &shared, 0, 0);
}

// The functions that one file adds to the module. The constructor puts them on a list, which the module walks when it
// is loaded.
class Binding {
  public:
    using Bind = void (*)(nanobind::module_ &);

    explicit Binding(Bind bind) : bind(bind), next(first) { first = this; }

    static void bind_all(nanobind::module_ &module) {
        for (const Binding *binding = first; binding != nullptr; binding = binding->next) binding->bind(module);
    }

  private:
    const Bind bind;
    const Binding *const next;
    // It is null before any constructor runs, whichever file's comes first.
    static const Binding *first;
};

}  // namespace zellige

// The bindings of a file, followed by their body: ZELLIGE_BINDINGS(module) { module.def(...); }
#define ZELLIGE_BINDINGS(module)                         \
    static void add_bindings(nanobind::module_ &module); \
    static const Binding bindings(add_bindings);         \
    static void add_bindings(nanobind::module_ &module)
