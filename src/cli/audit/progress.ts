/**
 * What an audit has done so far, in a file beside it: a first line that says which audit it is, then one line for each account
 * that is finished. Lines are only added, so that a crash costs at most the last of them.
 */
import { appendFileSync, existsSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import type { AuditedAccount, AuditReport, Disagreement, Head } from '../../engine.ts'
import { usage } from '../failure.ts'

/** Disagreements before it are told with the account: also those of accounts that are gone. */
export type Line = Omit<AuditedAccount, 'found' | 'disagreements'> & {
  readonly disagreements: number
  readonly found: readonly Disagreement[]
}

/** What was done before the interruption. */
export interface Done {
  readonly after: string
  readonly accounts: number
  readonly entries: number
  readonly disagreements: number
  readonly found: readonly Disagreement[]
  readonly checkpoints: { readonly resumed: number; readonly written: number }
  readonly retention: AuditReport['retention']
  readonly heads: Readonly<Record<string, Head>>
}

export interface ProgressFile {
  readonly done: Done | undefined
  note(line: Line): void
  /** Writes what was noted. */
  flush(): void
  remove(): void
}

const FLUSH_MS = 1_000

/** `audit` is whatever makes two audits the same: their lines belong together only then. `listed` bounds what is remembered as found. */
export function openProgress(file: string, audit: object, listed: number): ProgressFile {
  const first = JSON.stringify({ audit })
  const done = existsSync(file) ? readDone(file, first, listed) : undefined
  if (done === undefined) writeFileSync(file, `${first}\n`)
  let lines: string[] = []
  let flushedAt = performance.now()
  function flush(): void {
    flushedAt = performance.now()
    if (lines.length === 0) return
    appendFileSync(file, lines.join(''))
    lines = []
  }
  return {
    done,
    note(line) {
      lines.push(`${JSON.stringify(line)}\n`)
      if (performance.now() - flushedAt >= FLUSH_MS) flush()
    },
    flush,
    remove: () => rmSync(file),
  }
}

function readDone(file: string, first: string, listed: number): Done | undefined {
  const text = readFileSync(file, 'utf8')
  const whole = text.slice(0, text.lastIndexOf('\n') + 1)
  const [head, ...lines] = whole.split('\n').slice(0, -1)
  // Killed before its first line was whole: there is nothing to go on from.
  if (head === undefined && first.startsWith(text)) return undefined
  if (head !== first)
    throw usage(
      `${file} is not the progress of this audit`,
      'Use it with the same store, accounts and options; or name another file.',
    )
  truncateSync(file, Buffer.byteLength(whole))
  const found: Disagreement[] = []
  const heads: Record<string, Head> = {}
  const retention = { accounts: 0, before: null as number | null, heads: 0 }
  const sums = { after: '', accounts: 0, entries: 0, disagreements: 0, resumed: 0, written: 0 }
  for (const line of lines) {
    const one = JSON.parse(line) as Line
    sums.after = one.account
    sums.accounts += 1
    sums.entries += one.entries
    sums.disagreements += one.disagreements
    sums.resumed += Number(one.resumed)
    sums.written += Number(one.written)
    heads[one.account] = one.head
    if (one.headGone) retention.heads += 1
    if (one.retainedBefore !== undefined) {
      retention.accounts += 1
      retention.before = Math.max(retention.before ?? 0, one.retainedBefore)
    }
    for (const disagreement of one.found) if (found.length < listed) found.push(disagreement)
  }
  const { resumed, written, ...counts } = sums
  return sums.accounts === 0
    ? undefined
    : { ...counts, checkpoints: { resumed, written }, retention, found, heads }
}
