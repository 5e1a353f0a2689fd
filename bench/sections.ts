/**
 * What is compared with what. In each section the contestants take turns (A B A B …), because a shared machine drifts by a
 * quarter within minutes: ratios are taken within a turn, and of the turns the median.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { type Contestant, enter, type Marks, type Settings } from './contestant.ts'
import { type Figures, type Key, median } from './figures.ts'
import { ACCOUNTS } from './workload.ts'

export interface Conditions {
  /** How long one turn of one contestant lasts. */
  readonly seconds: number
  /** Turns that count; one more goes before, so that code is compiled and caches are warm. */
  readonly turns: number
  /** Where files are made; they are gone afterwards. */
  readonly folder: string
  /** How many accounts the large file has: a million, but for tests. The others have no more. */
  readonly manyAccounts: number
  /** A folder for CPU profiles. */
  readonly profileTo?: string
}

export interface Outcome {
  readonly figures: Figures
  /** Medians of ratios within a turn, as `key/key`. */
  readonly ratios: Readonly<Record<string, number>>
  /** What else was seen, for the reader. */
  readonly notes: readonly string[]
}

export const SECTIONS: Readonly<Record<string, (conditions: Conditions) => Promise<Outcome>>> = {
  kernel: (conditions) =>
    alone(conditions, 'kernel', (turns) => ({ kernel_decisions_per_s: median(marks(turns, 'perSecond')) })),
  embedded,
  hot,
  http,
  rlf: (conditions) =>
    alone(conditions, 'rlf', (turns) => ({ rlf_memory_per_s: median(marks(turns, 'perSecond')) })),
  accounts,
}

const usual = ({ manyAccounts }: Conditions): number => Math.min(ACCOUNTS, manyAccounts)

const marks = (turns: readonly Marks[], name: string): number[] =>
  turns.map((turn) => turn[name] ?? Number.NaN)
const ratio = (above: readonly Marks[], below: readonly Marks[]): number =>
  median(above.map((turn, place) => (turn.perSecond ?? Number.NaN) / (below[place]?.perSecond ?? Number.NaN)))
const perSecond = (turns: readonly Marks[]): number => median(marks(turns, 'perSecond'))

async function alone(
  conditions: Conditions,
  name: string,
  figures: (turns: readonly Marks[]) => Figures,
): Promise<Outcome> {
  const { only } = await contest(conditions, async (stage) => ({ only: await stage.enter(name) }))
  return { figures: figures(only), ratios: {}, notes: [] }
}

function pairNotes(sluice: readonly Marks[], raw: readonly Marks[]): string[] {
  const show = (turns: readonly Marks[], name: string): string =>
    Math.round(median(marks(turns, name))).toLocaleString('en-US')
  const cost = (turns: readonly Marks[]): string =>
    `${show(turns, 'microsHere')} µs of CPU on the deciding thread, ${show(turns, 'microsElsewhere')} µs on others, ${show(turns, 'bytesPerPair')} bytes`
  return [
    `a pair of Sluice's: ${cost(sluice)}`,
    `a pair of raw's: ${cost(raw)}`,
    `operations a batch: ${show(sluice, 'operationsPerBatch')}; memory: ${show(sluice, 'rssMb')} MB`,
  ]
}

async function embedded(conditions: Conditions): Promise<Outcome> {
  const { sluice, raw, naive } = await contest(conditions, async (stage) => ({
    sluice: await stage.enter('embedded', { folder: stage.folder('sluice'), accounts: usual(conditions) }),
    raw: await stage.enter('raw', { folder: stage.folder('raw'), accounts: usual(conditions) }),
    naive: await stage.enter('embedded', {
      folder: stage.folder('naive'),
      accounts: usual(conditions),
      naive: true,
    }),
  }))
  return {
    figures: {
      embedded_pairs_per_s: perSecond(sluice),
      embedded_raw_pairs_per_s: perSecond(raw),
      embedded_naive_pairs_per_s: perSecond(naive),
      event_loop_delay_p99_ms: median(marks(sluice, 'delayP99Ms')),
      embedded_bytes_per_pair: median(marks(sluice, 'bytesPerPair')),
    },
    ratios: {
      'embedded_pairs_per_s/embedded_raw_pairs_per_s': ratio(sluice, raw),
      'embedded_pairs_per_s/embedded_naive_pairs_per_s': ratio(sluice, naive),
    },
    notes: pairNotes(sluice, raw),
  }
}

async function hot(conditions: Conditions): Promise<Outcome> {
  const { sluice, raw } = await contest(conditions, async (stage) => ({
    sluice: await stage.enter('embedded', { folder: stage.folder('sluice'), accounts: 1 }),
    raw: await stage.enter('raw', { folder: stage.folder('raw'), accounts: 1 }),
  }))
  return {
    figures: {
      embedded_hot_pairs_per_s: perSecond(sluice),
      embedded_hot_raw_pairs_per_s: perSecond(raw),
    },
    ratios: { 'embedded_hot_pairs_per_s/embedded_hot_raw_pairs_per_s': ratio(sluice, raw) },
    notes: pairNotes(sluice, raw),
  }
}

async function http(conditions: Conditions): Promise<Outcome> {
  const [many, one, none] = [await freePort(), await freePort(), await freePort()]
  const { single, warm, bare, batch } = await contest(conditions, async (stage) => {
    await stage.enter('served', { folder: stage.folder('many'), accounts: usual(conditions), port: many })
    await stage.enter('served', { folder: stage.folder('one'), accounts: 1, port: one })
    await stage.enter('bare', { port: none })
    return {
      single: await stage.enter('load', { port: many, accounts: usual(conditions) }),
      warm: await stage.enter('load', { port: one, accounts: 1 }),
      bare: await stage.enter('load', { port: none, accounts: usual(conditions) }),
      batch: await stage.enter('load', { port: many, accounts: usual(conditions), batch: 64 }),
    }
  })
  return {
    figures: {
      http_reserve_per_s: perSecond(single),
      http_hot_reserve_per_s: perSecond(warm),
      http_bare_per_s: perSecond(bare),
      http_batch_ops_per_s: perSecond(batch),
    },
    ratios: {
      'http_reserve_per_s/http_bare_per_s': ratio(single, bare),
      'http_hot_reserve_per_s/http_bare_per_s': ratio(warm, bare),
      'http_batch_ops_per_s/http_reserve_per_s': ratio(batch, single),
    },
    notes: [],
  }
}

async function accounts(conditions: Conditions): Promise<Outcome> {
  const { manyAccounts } = conditions
  const { few, many } = await contest(conditions, async (stage) => {
    const places = { few: stage.folder('few'), many: stage.folder('many') }
    await stage.through('fill', { folder: places.few, accounts: usual(conditions) })
    await stage.through('fill', { folder: places.many, accounts: manyAccounts })
    return {
      few: await stage.enter('embedded', {
        folder: places.few,
        accounts: usual(conditions),
        existing: true,
      }),
      many: await stage.enter('embedded', { folder: places.many, accounts: manyAccounts, existing: true }),
    }
  })
  return {
    figures: { accounts_1m_ratio: ratio(many, few), accounts_1m_rss_mb: Math.max(...marks(many, 'rssMb')) },
    ratios: {},
    notes: [
      `pairs a second over ${manyAccounts} accounts: ${Math.round(perSecond(many))}, over ${usual(conditions)}: ${Math.round(perSecond(few))}`,
    ],
  }
}

/** Where contestants enter; everything is closed and removed in the end, in the reverse order. */
interface Stage {
  enter(name: string, settings?: Settings): Promise<Contestant>
  /** Runs one that only prepares something, to its end. */
  through(name: string, settings: Settings): Promise<void>
  folder(name: string): string
}

async function contest<Name extends string>(
  { seconds, turns, folder, profileTo }: Conditions,
  prepare: (stage: Stage) => Promise<Record<Name, Contestant>>,
): Promise<Record<Name, Marks[]>> {
  const entered: Contestant[] = []
  const own = mkdtempSync(join(folder, 'sluice-bench-'))
  try {
    const contestants = await prepare({
      async enter(name, settings) {
        const contestant = await enter(name, settings, profileTo)
        entered.push(contestant)
        return contestant
      },
      async through(name, settings) {
        await (await enter(name, settings)).close()
      },
      folder(name) {
        const path = join(own, name)
        mkdirSync(path)
        return path
      },
    })
    const names = Object.keys(contestants) as Name[]
    const all = Object.fromEntries(names.map((name) => [name, [] as Marks[]])) as Record<Name, Marks[]>
    for (let turn = -1; turn < turns; turn++) {
      for (const name of names) {
        const seen = await contestants[name].run(seconds)
        if (turn >= 0) all[name].push(seen)
      }
    }
    return all
  } finally {
    for (const contestant of entered.reverse()) await contestant.close()
    rmSync(own, { recursive: true, force: true })
  }
}

/** A port of this machine that was free a moment ago. */
async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  await new Promise((resolve) => server.close(resolve))
  return port
}

export type { Key }
