/** `npm run bench`: runs the sections, prints a table, or one JSON object. README.md says what each figure is. */
import { closeSync, fdatasyncSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import type { Conditions, Outcome } from './contest.ts'
import { SERVER, versionOf } from './database.ts'
import { FIGURES, type Figures, type Floor, median } from './figures.ts'
import { SECTIONS } from './sections.ts'

const USAGE = `Usage: npm run bench -- [section …] [options]

Sections: ${Object.keys(SECTIONS).join(', ')}. All of them where none is named,
postgres only where a server answers.

  --json            one JSON object with the figures, and nothing else
  --seconds N       how long each turn lasts (default 3)
  --turns N         how many turns count (default 3; one more goes before)
  --dir FOLDER      where the files are made (default: the system's folder for temporary files)
  --accounts N      accounts in the large file of section accounts, and a tenth of the uses in section postgres
                    (default 1000000)
  --streams N       streams at once in section gateway (default 1000)
  --stream-seconds N  how long each of them is (default 60)
  --postgres URL    a server for section postgres, where databases may be made (default: SLUICE_TEST_POSTGRES, or
                    ${SERVER})
  --profile FOLDER  writes a CPU profile of every contestant`

interface Asked extends Conditions {
  readonly json: boolean
  readonly sections: readonly string[]
  /** Whether the sections were asked for by name. */
  readonly named: boolean
}

function ask(): Asked | undefined {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
      seconds: { type: 'string', default: '3' },
      turns: { type: 'string', default: '3' },
      accounts: { type: 'string', default: '1000000' },
      streams: { type: 'string', default: '1000' },
      'stream-seconds': { type: 'string', default: '60' },
      dir: { type: 'string', default: tmpdir() },
      postgres: { type: 'string', default: process.env.SLUICE_TEST_POSTGRES || SERVER },
      profile: { type: 'string' },
    },
  })
  if (values.help) return undefined
  const number = (name: 'seconds' | 'turns' | 'accounts' | 'streams' | 'stream-seconds'): number => {
    const given = Number(values[name])
    const isTime = name.endsWith('seconds')
    if (given > 0 && (isTime || Number.isInteger(given))) return given
    throw new Error(`--${name} is ${values[name]}: give a ${isTime ? 'number' : 'whole number'} above zero`)
  }
  const unknown = positionals.filter((name) => SECTIONS[name] === undefined)
  if (unknown.length > 0)
    throw new Error(`there is no section ${unknown[0]}: ${Object.keys(SECTIONS).join(', ')}`)
  return {
    json: values.json,
    sections: positionals.length === 0 ? Object.keys(SECTIONS) : positionals,
    named: positionals.length > 0,
    seconds: number('seconds'),
    turns: number('turns'),
    folder: values.dir,
    postgres: values.postgres,
    manyAccounts: number('accounts'),
    streams: number('streams'),
    streamSeconds: number('stream-seconds'),
    ...(values.profile === undefined ? {} : { profileTo: values.profile }),
  }
}

async function main(asked: Asked): Promise<void> {
  const startedAt = performance.now()
  const say = (line: string): void => void process.stdout.write(`${line}\n`)
  const server = asked.sections.includes('postgres') ? await versionOf(asked.postgres) : undefined
  const missing = server !== undefined && 'problem' in server
  if (missing && asked.named) throw new Error(server.problem)
  if (!asked.json) for (const line of conditions(asked)) say(line)
  if (missing) process.stderr.write(`section postgres is left out: ${server.problem}\n`)
  else if (server !== undefined && !asked.json) say(server.version)
  let figures: Figures = {}
  for (const name of asked.sections) {
    if (name === 'postgres' && missing) continue
    const outcome = await SECTIONS[name]?.(asked)
    if (outcome === undefined) continue
    figures = { ...figures, ...outcome.figures }
    if (asked.json) continue
    say(`\n${name}`)
    for (const line of table(outcome)) say(`  ${line}`)
    for (const note of outcome.notes) say(`  ${note}`)
  }
  if (asked.json) process.stdout.write(`${JSON.stringify(rounded(figures), null, 2)}\n`)
  else say(`\ntook ${Math.round((performance.now() - startedAt) / 1000)} s`)
}

function conditions({ seconds, turns, folder }: Asked): string[] {
  const cores = cpus()
  return [
    `${new Date().toISOString()}  ${cores.length} cores (${cores[0]?.model.trim()})  Node ${process.versions.node}, SQLite ${process.versions.sqlite}`,
    `a sync of 4 KB in ${folder} takes ${syncMs(folder).toFixed(2)} ms (median of 200)`,
    `${turns} turns of ${seconds} s each after one to warm up; medians, ratios within a turn`,
    `Load generator, server, database and writing thread share the cores.`,
  ]
}

/** How long the disk takes to make a small write durable: no commit is faster. */
function syncMs(folder: string): number {
  const own = mkdtempSync(join(folder, 'sluice-bench-'))
  const file = openSync(join(own, 'sync'), 'w')
  const block = Buffer.alloc(4096, 1)
  const times = Array.from({ length: 200 }, () => {
    const startedAt = performance.now()
    writeSync(file, block)
    fdatasyncSync(file)
    return performance.now() - startedAt
  })
  closeSync(file)
  rmSync(own, { recursive: true })
  return median(times)
}

function rounded(figures: Figures): Figures {
  return Object.fromEntries(
    FIGURES.filter(({ key }) => figures[key] !== undefined).map(({ key, unit }) => [
      key,
      round(figures[key] as number, unit),
    ]),
  )
}

const round = (value: number, unit: string): number =>
  unit === '/s' || unit === 'bytes' ? Math.round(value) : Math.round(value * 100) / 100

function table({ figures, ratios }: Outcome): string[] {
  return FIGURES.filter(({ key }) => figures[key] !== undefined).flatMap((figure) => {
    const { key, unit } = figure
    const value = figures[key] as number
    const shown = round(value, unit).toLocaleString('en-US')
    const [first = '', ...others] =
      'floors' in figure ? figure.floors.map((floor) => judged(key, value, floor, ratios)) : []
    return [
      `${key.padEnd(29)}${shown.padStart(10)} ${unit.padEnd(7)}${first}`.trimEnd(),
      ...others.map((other) => `${''.padEnd(47)}${other}`),
    ]
  })
}

function judged(key: string, value: number, floor: Floor, ratios: Readonly<Record<string, number>>): string {
  const mark = (met: boolean): string => (met ? 'met' : 'MISSED')
  if ('least' in floor)
    return `at least ${floor.least.toLocaleString('en-US')}: ${mark(value >= floor.least)}`
  if ('most' in floor) return `at most ${floor.most.toLocaleString('en-US')}: ${mark(value <= floor.most)}`
  const ratio = ratios[`${key}/${floor.to}`] ?? Number.NaN
  return `${ratio.toFixed(2)} of ${floor.to}, at least ${floor.ratio}: ${mark(ratio >= floor.ratio)}`
}

try {
  const asked = ask()
  if (asked === undefined) process.stdout.write(`${USAGE}\n`)
  else await main(asked)
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = 1
}
