/** What only Node has: a spool that outlives its process, and an end for a process that is told to end. */
import { appendFileSync, existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import type { Operation } from '../src/wire.ts'
import type { Client } from './client.ts'
import { memorySpool, type Spool } from './spool.ts'

/** Lines that were dealt with, beyond which the file is written anew. */
const COMPACT_FROM = 1_000

/**
 * A spool in a file of its own, one process at a time: lines of JSON, appended as things happen. It outlives the process, and
 * what the operating system has not written yet does not outlive a loss of power. A last line that was cut off is left out.
 */
export function fileSpool(path: string): Spool {
  const lines = existsSync(path) ? readFileSync(path, 'utf8').split('\n') : []
  const kept: Operation[] = []
  for (const line of lines) {
    const read = parse(line)
    if (read === undefined) continue
    if ('told' in read) kept.splice(0, read.told)
    else kept.push(read)
  }
  const spool = memorySpool(kept)
  let told = 0
  rewrite()

  function rewrite(): void {
    const text = spool
      .first(spool.size)
      .map((operation) => `${JSON.stringify(operation)}\n`)
      .join('')
    // Whole or not at all.
    writeFileSync(`${path}.new`, text, { mode: 0o600 })
    renameSync(`${path}.new`, path)
    told = 0
  }
  return {
    get size() {
      return spool.size
    },
    add(operation) {
      appendFileSync(path, `${JSON.stringify(operation)}\n`)
      spool.add(operation)
    },
    first: spool.first,
    drop(count) {
      spool.drop(count)
      told += count
      if (spool.size === 0 || told >= COMPACT_FROM) rewrite()
      else appendFileSync(path, `${JSON.stringify({ told: count })}\n`)
    },
  }
}

function parse(line: string): Operation | { readonly told: number } | undefined {
  try {
    return line === '' ? undefined : (JSON.parse(line) as Operation | { readonly told: number })
  } catch {
    return undefined
  }
}

/**
 * When the process is told to end (SIGTERM, SIGINT), ends the holds of what runs and tells what is kept, at most so long, and then
 * ends the process by the same signal. Answers how to take this back.
 */
export function closeOnSignals(client: Client, withinMs = 5_000): () => void {
  const signals = ['SIGTERM', 'SIGINT'] as const
  const end = (signal: NodeJS.Signals): void => {
    takeBack()
    client
      .close(withinMs)
      .catch(() => {})
      .finally(() => process.kill(process.pid, signal))
  }
  const takeBack = (): void => {
    for (const signal of signals) process.removeListener(signal, end)
  }
  for (const signal of signals) process.once(signal, end)
  return takeBack
}
