/** Reads a trace, CSV plain or gzip, row by row: the file may be larger than memory. */
import { closeSync, createReadStream, openSync, readSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { createGunzip } from 'node:zlib'
import type { Millis } from '../../units.ts'
import { CliError, EXIT } from '../failure.ts'
import { type Mapping, mappingOf, type Said } from './columns.ts'

export interface TraceRow {
  /** Counted from 1, without the header. */
  readonly number: number
  readonly at: Millis
  readonly client: string | undefined
  readonly quantities: Readonly<Record<string, number>>
}

export interface Trace {
  readonly mapping: Mapping
  /** In order of time: a row that is earlier than the one before it comes at the same instant as that one. */
  readonly rows: AsyncIterator<TraceRow>
  /** How many rows came late in that sense, so far. */
  readonly late: () => number
  close(): void
}

export interface TraceOptions extends Said {
  /** Where a time that counts from zero begins. */
  readonly startAt: Millis
  readonly limit: number
}

export async function openTrace(path: string, options: TraceOptions): Promise<Trace> {
  const gzip = isGzip(path)
  const file = createReadStream(path)
  const input = gzip ? file.pipe(createGunzip()) : file
  const lines = createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY })
  // A stream that fails ends the loop over its lines; the error itself has to be caught here.
  let failure: Error | undefined
  for (const stream of new Set([file, input])) {
    stream.on('error', (error: Error) => {
      failure = error
      lines.close()
    })
  }
  const each = lines[Symbol.asyncIterator]()
  const first = await each.next()
  if (failure !== undefined) throw failure
  if (first.done)
    throw unreadable(path, 1, 'there is no header', 'Name a CSV file whose first line names the columns.')
  const header = cellsOf(first.value.replace(/^\uFEFF/, ''))
  const mapping = mappingOf(header, options)
  let late = 0

  async function* rows(): AsyncGenerator<TraceRow> {
    const read = rowReader(path, header, mapping, options.startAt)
    let number = 0
    let latestAt = Number.NEGATIVE_INFINITY
    while (number < options.limit) {
      const { value: line, done } = await each.next()
      if (done) break
      if (line === '') continue
      number += 1
      const row = read(line, number)
      if (row.at < latestAt) late += 1
      latestAt = Math.max(latestAt, row.at)
      yield { ...row, at: latestAt }
    }
    if (failure !== undefined) throw failure
  }

  return {
    mapping,
    rows: rows(),
    late: () => late,
    close() {
      lines.close()
      file.destroy()
    },
  }
}

function isGzip(path: string): boolean {
  const fd = openSync(path, 'r')
  const magic = Buffer.alloc(2)
  try {
    return readSync(fd, magic, 0, 2, 0) === 2 && magic.readUInt16BE() === 0x1f8b
  } finally {
    closeSync(fd)
  }
}

/** Fields of one line; a quoted one may hold commas, and two quotes stand for one. */
function cellsOf(line: string): string[] {
  if (!line.includes('"')) return line.split(',').map((cell) => cell.trim())
  return [...line.matchAll(/(?:^|,)(?:"((?:[^"]|"")*)"|([^,]*))/g)].map(
    ([, quoted, plain = '']) => quoted?.replaceAll('""', '"') ?? plain.trim(),
  )
}

function rowReader(path: string, header: readonly string[], mapping: Mapping, startAt: Millis) {
  const timeAt = header.indexOf(mapping.time)
  const clientAt = mapping.client === undefined ? -1 : header.indexOf(mapping.client)
  const sums = Object.entries(mapping.quantities).map(
    ([name, columns]) => [name, columns.map((column) => header.indexOf(column))] as const,
  )
  return (line: string, number: number): TraceRow => {
    const cells = cellsOf(line)
    const refuse = (at: number, wanted: string): CliError =>
      unreadable(
        path,
        number + 1,
        `${header[at]} is ${JSON.stringify(cells[at] ?? '')}`,
        `It takes ${wanted}.`,
      )
    const at = instantOf(cells[timeAt] ?? '', startAt)
    if (at === undefined) throw refuse(timeAt, 'a date with time, or seconds from the start')
    const quantities: Record<string, number> = {}
    for (const [name, places] of sums) {
      let sum = 0
      for (const place of places) {
        const text = cells[place] ?? ''
        if (!/^\d{1,12}(\.\d{1,6})?$/.test(text)) throw refuse(place, 'a number that is not negative')
        sum += Number(text)
      }
      quantities[name] = sum
    }
    const client = clientAt === -1 ? undefined : cells[clientAt]
    if (client !== undefined && !/^[!-~]{1,128}$/.test(client)) throw refuse(clientAt, 'a name without space')
    return { number, at, client, quantities }
  }
}

const DATE = /^(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(\.\d{1,9})?(Z|[+-]\d\d:\d\d)?$/

/** A date in its zone, or in UTC where it names none; seconds from the start; seconds or milliseconds since the epoch. */
function instantOf(text: string, startAt: Millis): Millis | undefined {
  const date = DATE.exec(text)
  if (date !== null) {
    const [, day, time, fraction = '', zone = 'Z'] = date
    const at = Date.parse(`${day}T${time}${fraction.slice(0, 4).padEnd(fraction === '' ? 0 : 4, '0')}${zone}`)
    return Number.isNaN(at) ? undefined : at
  }
  if (!/^\d{1,13}(\.\d+)?$/.test(text)) return undefined
  const value = Number(text)
  if (value >= 1e11) return Math.floor(value)
  return value >= 1e9 ? Math.floor(value * 1000) : startAt + Math.floor(value * 1000)
}

function unreadable(path: string, line: number, what: string, remedy: string): CliError {
  return new CliError(EXIT.finding, `${path}:${line}: ${what}`, remedy)
}
