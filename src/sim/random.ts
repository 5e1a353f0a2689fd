/**
 * Chance that repeats itself: the same seed gives the same numbers on every machine.
 *
 * The generator is `sfc32` of Chris Doty-Humphrey's PractRand (2010, public domain): 128 bits of state, of which 32 count,
 * so that no seed falls into a short cycle. It is not for secrets.
 */
export interface Random {
  /** An integer from 0 to 2³² − 1. */
  next(): number
  /** An integer from `least` to `most`, both included. */
  int(least: number, most: number): number
  /** True once in `n` times. */
  once(n: number): boolean
  pick<T>(from: readonly T[]): T
}

/** `seed` is an integer; only its lowest 32 bits count. */
export function randomFrom(seed: number): Random {
  let a = 0
  let b = seed | 0
  let c = seed < 0 || seed > 0xffffffff ? 1 : 0
  let counter = 1

  function next(): number {
    const sum = (((a + b) | 0) + counter) | 0
    counter = (counter + 1) | 0
    a = b ^ (b >>> 9)
    b = (c + (c << 3)) | 0
    c = (((c << 21) | (c >>> 11)) + sum) | 0
    return sum >>> 0
  }
  // The author's own seeding: the first twelve rounds only mix.
  for (let round = 0; round < 12; round++) next()

  const int = (least: number, most: number): number =>
    least + Math.floor((next() / 2 ** 32) * (most - least + 1))
  return {
    next,
    int,
    once: (n) => int(1, n) === 1,
    pick(from) {
      if (from.length === 0) throw new RangeError('there is nothing to pick from')
      return from[int(0, from.length - 1)] as (typeof from)[number]
    },
  }
}
