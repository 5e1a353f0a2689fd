import { closeSync, existsSync, fstatSync, openSync, readSync, statSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { SluiceError } from '../../errors.ts'
import { unavailable } from './failure.ts'

const REMEDY = 'Restore the folder from a backup: Sluice does not serve a damaged file.'
const damaged = (path: string, how: string): SluiceError =>
  new SluiceError('unavailable', `${path} is damaged: ${how}`, { remedy: REMEDY })

/**
 * Looks at a file before SQLite opens it: the first bytes, and whether all the pages are there that the header counts.
 * While a log stands beside it the header may be ahead of the file, and only `checkPages` can tell. (The file must not
 * be open in this process yet: closing it here would end SQLite's locks.)
 */
export function checkHeader(path: string): void {
  if (!existsSync(path)) return
  const file = openSync(path, 'r')
  try {
    const { size } = fstatSync(file)
    if (size === 0) return
    const header = Buffer.alloc(100)
    readSync(file, header, { length: 100, position: 0 })
    if (header.toString('latin1', 0, 16) !== 'SQLite format 3\0')
      throw damaged(path, 'it does not begin as SQLite files do')
    const pageSize = header.readUInt16BE(16) === 1 ? 65_536 : header.readUInt16BE(16)
    const pages = header.readUInt32BE(28)
    const logged = existsSync(`${path}-wal`) && statSync(`${path}-wal`).size > 0
    if (!logged && size < pages * pageSize)
      throw damaged(path, `${pages * pageSize - size} bytes are missing at its end`)
  } finally {
    closeSync(file)
  }
}

/** Files up to this size are checked before anything else happens: about 30 ms. */
const AT_ONCE_BYTES = 16 * 1024 * 1024

/**
 * Looks at every page. A large file is checked in a thread of its own, which is waited for no longer than `waitMs`
 * (about 1 GB in 3 s where it is cached); after that it goes on, and what it finds is told to `onDamage`.
 */
export async function checkPages(
  path: string,
  waitMs: number,
  onDamage: (error: SluiceError) => void,
): Promise<{ stop(): void }> {
  if (statSync(path).size <= AT_ONCE_BYTES) {
    const error = quickCheck(path)
    if (error !== undefined) throw error
    return { stop: () => {} }
  }
  const worker = new Worker(new URL(import.meta.url), { workerData: { check: path } })
  worker.unref()
  let waiting = true
  const found = new Promise<SluiceError | undefined>((resolve) => {
    worker.once('message', (how: string | null) => resolve(how === null ? undefined : damaged(path, how)))
    worker.once('error', (error) => resolve(unavailable(error, path)))
  })
  found.then((error) => error !== undefined && !waiting && onDamage(error))
  let timer: NodeJS.Timeout | undefined
  const early = await Promise.race([
    found,
    new Promise<undefined>((resolve) => {
      timer = setTimeout(resolve, waitMs, undefined)
    }),
  ])
  clearTimeout(timer)
  waiting = false
  if (early !== undefined) throw early
  return { stop: () => void worker.terminate() }
}

function quickCheck(path: string): SluiceError | undefined {
  try {
    const how = findDamage(path)
    return how === null ? undefined : damaged(path, how)
  } catch (error) {
    return unavailable(error, path)
  }
}

/** The first thing that SQLite finds wrong; null where all is well. */
function findDamage(path: string): string | null {
  const db = new DatabaseSync(path, { readOnly: true })
  try {
    const found = db.prepare('pragma quick_check(1)').get() as { quick_check: string }
    return found.quick_check === 'ok' ? null : found.quick_check.replaceAll('\n', ' ')
  } finally {
    db.close()
  }
}

if (!isMainThread && typeof workerData?.check === 'string')
  parentPort?.postMessage(findDamage(workerData.check))
