/** What a person or a program reads: tables, JSON, progress. Answers go to standard output, everything else to the other. */
import { formatMicros } from '../units.ts'

export function print(text = ''): void {
  process.stdout.write(`${text}\n`)
}

/** For remarks that are no part of the answer. */
export function remark(text: string): void {
  process.stderr.write(`${text}\n`)
}

/** One JSON value, indented for people, on standard output. */
export function printJson(value: unknown): void {
  print(JSON.stringify(value, null, 2))
}

export interface Column {
  readonly title: string
  readonly align?: 'left' | 'right'
}
export type Cell = string | number | null | undefined

/** A table in plain text: columns as wide as their widest cell, two spaces between them. */
export function table(columns: readonly (Column | string)[], rows: readonly (readonly Cell[])[]): string {
  const heads = columns.map((column): Column => (typeof column === 'string' ? { title: column } : column))
  const texts = rows.map((row) => heads.map((_, at) => cellText(row[at])))
  const widths = heads.map(({ title }, at) =>
    Math.max(title.length, ...texts.map((row) => width(row[at] ?? ''))),
  )
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, at) => pad(cell, widths[at] ?? 0, heads[at]?.align ?? 'left'))
      .join('  ')
      .trimEnd()
  const titles = heads.map(({ title }) => title)
  const head = titles.every((title) => title === '') ? [] : [bold(line(titles))]
  return [...head, ...texts.map(line)].join('\n')
}

/** Names and values under each other. Absent values are left out. */
export function facts(pairs: readonly (readonly [name: string, value: Cell])[]): string {
  const there = pairs.filter(([, value]) => value !== undefined && value !== null)
  const widest = Math.max(0, ...there.map(([name]) => name.length))
  return there.map(([name, value]) => `${name.padEnd(widest)}  ${cellText(value)}`).join('\n')
}

const cellText = (cell: Cell): string => (cell === null || cell === undefined ? '–' : String(cell))
const width = (text: string): number => [...text].length

function pad(text: string, to: number, align: 'left' | 'right'): string {
  const room = ' '.repeat(Math.max(0, to - width(text)))
  return align === 'right' ? room + text : text + room
}

const colours = (): boolean => process.stdout.isTTY === true && process.env.NO_COLOR === undefined
export const bold = (text: string): string => (colours() ? `\x1b[1m${text}\x1b[22m` : text)

/** At a terminal, a long line as several, the later ones indented; elsewhere as it is, for whoever searches in it. */
export function wrapped(line: string, columns = process.stdout.isTTY ? process.stdout.columns : 0): string {
  if (columns < 40 || width(line) <= columns) return line
  const margin = `${/^ */.exec(line)?.[0] ?? ''}    `
  const lines: string[] = []
  let current = ''
  for (const word of line.split(/(?<=\S) /)) {
    const longer = current === '' ? word : `${current} ${word}`
    if (current !== '' && width(longer) > columns) {
      lines.push(current)
      current = margin + word
    } else current = longer
  }
  return [...lines, current].join('\n')
}

/** `2026-07-24 15:04:05Z`: an instant as people read it, in UTC; a dash where there is none. */
export function instantText(at: number | null | undefined): string {
  if (at === null || at === undefined) return '–'
  const text = new Date(at).toISOString()
  return `${text.slice(0, 10)} ${text.slice(11, 19)}Z`
}

/** 1234567 → `1,234,567`: the same on every machine, whatever its language. */
export function count(value: number): string {
  return String(value).replace(/\B(?=(\d{3})+(?!\d))/g, ',')
}

/** µCU as CU with at most `places` decimals, for tables. What must be exact uses `formatMicros`. */
export function cuText(micros: number, places = 2): string {
  const [whole = '0', rest = ''] = formatMicros(micros).split('.')
  const kept = places === 0 ? '' : `.${rest.padEnd(places, '0').slice(0, places)}`
  return count(Number(whole)) + kept
}

/** 0.1234 → `12.3 %`. */
export function share(part: number, whole: number): string {
  return whole === 0 ? '–' : `${((100 * part) / whole).toFixed(1)} %`
}

export interface Progress {
  /** Told often, shown rarely. */
  show(text: () => string): void
  end(): void
}

/** One line on standard error: rewritten in place at a terminal, repeated every five seconds where there is none. */
export function progress(): Progress {
  const atTerminal = process.stderr.isTTY === true
  const everyMs = atTerminal ? 100 : 5000
  let shownAt = performance.now() - (atTerminal ? everyMs : 0)
  let drawn = false
  return {
    show(text) {
      const now = performance.now()
      if (now - shownAt < everyMs) return
      shownAt = now
      if (atTerminal) process.stderr.write(`\r\x1b[K${text()}`)
      else remark(text())
      drawn = true
    },
    end() {
      if (atTerminal && drawn) process.stderr.write('\r\x1b[K')
    },
  }
}
