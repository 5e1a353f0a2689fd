/**
 * A contest: contestants enter, and take turns (A B A B …), because a shared machine drifts by a quarter within minutes:
 * ratios are taken within a turn, and of the turns the median.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { type Contestant, enter, type Marks, type Settings } from './contestant.ts'
import { makeDatabase } from './database.ts'
import { type Figures, median } from './figures.ts'
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
  /** How many long streams section gateway opens, and how long each is. */
  readonly streams: number
  readonly streamSeconds: number
  /** The URL of a PostgreSQL server where databases may be made. */
  readonly postgres: string
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

export const usual = ({ manyAccounts }: Conditions): number => Math.min(ACCOUNTS, manyAccounts)

export const marks = (turns: readonly Marks[], name: string): number[] =>
  turns.map((turn) => turn[name] ?? Number.NaN)
export function ratio(above: readonly Marks[], below: readonly Marks[], name = 'perSecond'): number {
  const under = marks(below, name)
  return median(marks(above, name).map((mark, turn) => mark / (under[turn] ?? Number.NaN)))
}
export const perSecond = (turns: readonly Marks[]): number => median(marks(turns, 'perSecond'))

/** Where contestants enter; everything is closed and removed in the end, in the reverse order. */
export interface Stage {
  enter(name: string, settings?: Settings): Promise<Contestant>
  /** Runs one that only prepares something, to its end. */
  through(name: string, settings: Settings): Promise<void>
  folder(name: string): string
  /** The URL of a database of its own on the PostgreSQL server. */
  database(): Promise<string>
}

export async function contest<Name extends string>(
  { seconds, turns, folder, postgres, profileTo }: Conditions,
  prepare: (stage: Stage) => Promise<Record<Name, Contestant>>,
): Promise<Record<Name, Marks[]>> {
  const own = mkdtempSync(join(folder, 'sluice-bench-'))
  const endings = [async () => rmSync(own, { recursive: true, force: true })]
  try {
    const contestants = await prepare({
      async enter(name, settings) {
        const contestant = await enter(name, settings, profileTo)
        endings.push(contestant.close)
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
      async database() {
        const { url, drop } = await makeDatabase(postgres)
        endings.push(drop)
        return url
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
    await inReverse(endings)
  }
}

/** All of them, whichever fails: a database that stays would stay on a server of somebody's. */
async function inReverse(endings: readonly (() => Promise<void>)[]): Promise<void> {
  const failures: unknown[] = []
  for (const end of endings.toReversed()) await end().catch((error) => failures.push(error))
  if (failures.length > 0) throw failures[0]
}
