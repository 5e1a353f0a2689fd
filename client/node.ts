/** What only Node has: a spool that outlives its process, and an end for a process that is told to end. */
import {
  appendFileSync,
  existsSync,
  linkSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import type { Operation } from '../src/wire.ts'
import type { Client } from './client.ts'
import { memorySpool, type Spool } from './spool.ts'

/** Lines that were dealt with, beyond which the file is written anew. */
const COMPACT_FROM = 1_000

/** Between two attempts to write what could not be written, in milliseconds. */
const AGAIN_MS = 1_000

/** What else a spool in a file may be told. */
export interface FileSpoolOptions {
  /** Told where the file cannot be written, because the disk is full say: until it can be again, what is kept is kept in memory alone. */
  onError?(error: unknown): void
}

/**
 * A spool in a file of its own: lines of JSON, appended as things happen. It outlives the process, and what the operating system
 * has not written yet does not outlive a loss of power. What was cut off is left out. One client at a time: throws where another has
 * it that still runs on this machine, in whose `PATH.lock` it says so; closing its client leaves it to the next.
 */
export function fileSpool(path: string, { onError }: FileSpoolOptions = {}): Spool {
  const lock = `${path}.lock`
  takeLock(lock, path)
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
  let brokenAt: number | undefined
  let isClosed = false
  rewrite()

  function write(what: Operation | { readonly told: number }): void {
    // It is somebody else's by then.
    if (isClosed) return
    try {
      if (brokenAt !== undefined && performance.now() - brokenAt < AGAIN_MS) return
      // After a failure the file is not what was written to it: a line may be missing, or cut off.
      if (brokenAt !== undefined || spool.size === 0 || told >= COMPACT_FROM) rewrite()
      else appendFileSync(path, `${JSON.stringify(what)}\n`)
      brokenAt = undefined
    } catch (error) {
      brokenAt = performance.now()
      onError?.(error)
    }
  }

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
      spool.add(operation)
      write(operation)
    },
    first: spool.first,
    drop(count) {
      spool.drop(count)
      told += count
      write({ told: count })
    },
    close() {
      if (!isClosed) rmSync(lock, { force: true })
      isClosed = true
    },
  }
}

function parse(line: string): Operation | { readonly told: number } | undefined {
  try {
    const read: unknown = JSON.parse(line)
    const isOne = typeof read === 'object' && read !== null && ('op' in read || 'told' in read)
    return isOne ? (read as Operation | { readonly told: number }) : undefined
  } catch {
    return undefined
  }
}

/**
 * Two that write one file would each drop what the other has not told. A lock says who has it; one whose process has ended is
 * taken over, by one of those who try.
 */
function takeLock(lock: string, path: string): void {
  for (;;) {
    try {
      return writeFileSync(lock, `${process.pid} ${startOf(process.pid)}`, { flag: 'wx', mode: 0o600 })
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    }
    const owner = textOf(lock)
    const pid = Number(owner.split(' ')[0])
    if (pid > 0 && isRunning(pid) && owner === `${pid} ${startOf(pid)}`)
      throw new Error(
        `${path} is the spool of process ${pid}: give each client a file of its own, and close the one that had it before`,
      )
    const old = `${lock}.${process.pid}`
    try {
      renameSync(lock, old)
      // Somebody else was first, and has taken it over already.
      if (textOf(old) !== owner) linkSync(old, lock)
    } catch (error) {
      if (!['ENOENT', 'EEXIST'].includes(String((error as NodeJS.ErrnoException).code))) throw error
    } finally {
      rmSync(old, { force: true })
    }
  }
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}

/** Process ids come again, in containers nearly always; where Linux tells when a process began, that tells two apart. */
const startOf = (pid: number): string => /\) (?:\S+ ){19}(\d+)/.exec(textOf(`/proc/${pid}/stat`))?.[1] ?? ''

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
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
