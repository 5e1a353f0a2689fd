/** One answer as it grows: bounded, stopped where the caller said, and no faster than it should be. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Model, Prompted } from './ngram.ts'

export interface RunOptions extends Prompted {
  readonly model: Model
  /** Tokens at most. */
  readonly most: number
  readonly stops: readonly string[]
}

export interface Run {
  /** Pieces of the text: a token each, unless one may be the beginning of a stop sequence. */
  readonly pieces: Iterator<string, void>
  /** Generated so far. */
  readonly tokens: number
  /** Valid when the pieces are at their end. */
  readonly reason: 'stop' | 'length'
}

export function createRun({ model, most, stops, ...prompted }: RunOptions): Run {
  let tokens = 0
  let reason: Run['reason'] = 'stop'
  function* pieces(): Generator<string, void> {
    let held = ''
    for (const token of model.generate(prompted)) {
      if (tokens === most) {
        reason = 'length'
        break
      }
      tokens++
      held += token
      const at = firstOf(held, stops)
      if (at !== -1) {
        if (at > 0) yield held.slice(0, at)
        return
      }
      const free = held.length - beginningOf(held, stops)
      if (free > 0) yield held.slice(0, free)
      held = held.slice(free)
    }
    if (held !== '') yield held
  }
  return {
    pieces: pieces(),
    get tokens() {
      return tokens
    },
    get reason() {
      return reason
    },
  }
}

function firstOf(text: string, stops: readonly string[]): number {
  const places = stops.map((stop) => text.indexOf(stop)).filter((at) => at !== -1)
  return places.length === 0 ? -1 : Math.min(...places)
}

/** How many characters at the end of the text may be the beginning of a stop sequence. */
function beginningOf(text: string, stops: readonly string[]): number {
  let most = 0
  for (const stop of stops)
    for (let length = Math.min(stop.length - 1, text.length); length > most; length--)
      if (text.endsWith(stop.slice(0, length))) most = length
  return most
}

/** The pieces of several runs in turns, each with its run's index: as many a second as may be of each. */
export async function* paced(
  runs: readonly Run[],
  tokensPerSecond: number,
  signal: AbortSignal,
): AsyncGenerator<readonly [index: number, piece: string], void> {
  const startedAt = performance.now()
  const open = new Set(runs.keys())
  for (let round = 1; open.size > 0; round++) {
    for (const index of open) {
      const { done, value } = (runs[index] as Run).pieces.next()
      if (done) {
        open.delete(index)
        continue
      }
      const early = startedAt + (round * 1_000) / tokensPerSecond - performance.now()
      if (early > 1) await sleep(early, undefined, { signal })
      signal.throwIfAborted()
      yield [index, value as string]
    }
  }
}
