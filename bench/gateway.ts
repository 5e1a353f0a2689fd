/** What the gateway adds to the upstream behind it: time, and memory for each open stream. */

import { freePort } from '../test/ports.ts'
import { type Conditions, contest, marks, type Outcome, type Stage } from './contest.ts'
import type { Marks } from './contestant.ts'
import { median } from './figures.ts'

/** Calls a second, whole and as streams. */
const CALLS = 500
const STREAMED_CALLS = 100
/** Of each long stream. */
const TOKENS_PER_SECOND = 4

export async function gateway(conditions: Conditions): Promise<Outcome> {
  const short = await calls(conditions)
  const through = await streams(conditions, 'gateway')
  const bare = await streams(conditions, 'proxy')
  const { whole, wholeThrough, first, firstThrough } = short
  const shown = (value: number | undefined): string => Math.round(value ?? Number.NaN).toLocaleString('en-US')
  const ms = (turns: readonly Marks[], name: string): string => median(marks(turns, name)).toFixed(2)
  const percent = ({ cpuShare = Number.NaN }: Marks): string => `${(cpuShare * 100).toFixed(0)} %`
  return {
    figures: {
      gateway_added_p50_ms: added(wholeThrough, whole, 'p50Ms'),
      gateway_added_p99_ms: added(wholeThrough, whole, 'p99Ms'),
      gateway_first_token_ms: added(firstThrough, first, 'p50Ms'),
      gateway_stream_bytes: through.bytes ?? Number.NaN,
    },
    ratios: {},
    notes: [
      `${CALLS} calls a second: p50 ${ms(whole, 'p50Ms')} ms and p99 ${ms(whole, 'p99Ms')} ms directly, ${ms(wholeThrough, 'p50Ms')} and ${ms(wholeThrough, 'p99Ms')} ms through`,
      `a call takes ${shown(median(marks(wholeThrough, 'microsPerCall')))} µs of CPU in the gateway, a short stream ${shown(median(marks(firstThrough, 'microsPerCall')))} µs`,
      `${shown(conditions.streams)} streams of ${conditions.streamSeconds} s, ${shown(through.tokens)} tokens, each charged exactly and the audit clean`,
      `a stream holds ${shown(through.bytes)} bytes in the gateway (${shown(through.rssBytes)} of RSS), ${shown(bare.bytes)} (${shown(bare.rssBytes)}) in a bare proxy`,
      `between 30 % and 90 % of the time it grew by ${shown(through.grownBytes)} bytes, in the bare proxy by ${shown(bare.grownBytes)}`,
      `they took ${percent(through)} of a core in the gateway, ${percent(bare)} in the bare proxy`,
    ],
  }
}

/** The median of what was added within each turn. */
const added = (through: readonly Marks[], direct: readonly Marks[], name: string): number => {
  const under = marks(direct, name)
  return median(marks(through, name).map((mark, turn) => mark - (under[turn] ?? Number.NaN)))
}

async function calls(conditions: Conditions) {
  const [to, port, controlPort] = [await freePort(), await freePort(), await freePort()]
  return contest(conditions, async (stage) => {
    const folder = stage.folder('gateway')
    await stage.enter('upstream', { port: to })
    await stage.enter('gateway', { folder, port, to, controlPort })
    const through = { port, folder, controlPort }
    return {
      whole: await stage.enter('calls', { port: to, rate: CALLS }),
      wholeThrough: await stage.enter('calls', { ...through, rate: CALLS }),
      first: await stage.enter('calls', { port: to, rate: STREAMED_CALLS, stream: true }),
      firstThrough: await stage.enter('calls', { ...through, rate: STREAMED_CALLS, stream: true }),
    }
  })
}

/** Once and not in turns: a turn of a minute each would take the day, and memory does not drift as time does. */
async function streams(conditions: Conditions, name: 'gateway' | 'proxy'): Promise<Marks> {
  const [to, port, controlPort] = [await freePort(), await freePort(), await freePort()]
  let seen: Marks = {}
  await contest({ ...conditions, turns: 0 }, async (stage: Stage) => {
    const folder = stage.folder(name)
    await stage.enter('upstream', { port: to, tokensPerSecond: TOKENS_PER_SECOND })
    await stage.enter(name, { folder, port, to, controlPort })
    const load = await stage.enter('streams', {
      ...{ folder, port, controlPort, streams: conditions.streams, tokensPerSecond: TOKENS_PER_SECOND },
    })
    seen = await load.run(conditions.streamSeconds)
    return {}
  })
  return seen
}
