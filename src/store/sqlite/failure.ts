import { SluiceError } from '../../errors.ts'
import { CommitError, type CommitOutcome } from '../coalesce.ts'

/** A failure in a form that crosses threads. */
export interface Failure {
  readonly outcome: CommitOutcome
  readonly message: string
  readonly remedy: string
}

const REFUSED = 'Nothing of this operation was written; report this, it is a defect in Sluice.'
const BY_CODE: Readonly<Record<number, readonly [says: string, remedy: string]>> = {
  5: ['is locked by another process', 'Stop the other process, or wait until it has finished.'],
  6: ['is locked by another process', 'Stop the other process, or wait until it has finished.'],
  7: ['needs more memory than there is', 'Give the process more memory.'],
  8: ['cannot be written', 'Make the file and its folder writable for the user that runs Sluice.'],
  10: [
    'could not be read or written by the operating system',
    'Look at the disk and at the limits of the process.',
  ],
  11: ['is damaged', 'Restore the folder from a backup; `sluice audit` shows what it holds.'],
  13: ['cannot grow: the disk is full', 'Make room on the disk; Sluice goes on by itself.'],
  14: ['cannot be opened', 'See that its folder exists and is writable for the user that runs Sluice.'],
  26: [
    'is not an SQLite file, or its first page is damaged',
    'Restore the folder from a backup, or name another path.',
  ],
}

/** Tells what an error of SQLite means for a commit. An error without a code of SQLite's came from binding a value. */
export function failureOf(error: unknown, path: string): Failure {
  if (error instanceof SluiceError) {
    return { outcome: 'unavailable', message: error.message, remedy: error.detail.remedy ?? '' }
  }
  const { errcode, code } = error as { errcode?: number; code?: string }
  const known = errcode === undefined ? undefined : BY_CODE[errcode & 0xff]
  if (known !== undefined) {
    return { outcome: 'unavailable', message: `${path} ${known[0]} (${messageOf(error)})`, remedy: known[1] }
  }
  // A folder that cannot be made or entered, as Node tells it.
  if (errcode === undefined && code !== undefined && !code.startsWith('ERR_')) {
    const [says, remedy] = BY_CODE[
      code === 'ENOSPC' ? 13 : code === 'EROFS' || code === 'EACCES' ? 8 : 14
    ] ?? ['', '']
    return { outcome: 'unavailable', message: `${path} ${says} (${messageOf(error)})`, remedy }
  }
  return { outcome: 'refused', message: `${path} refused the data (${messageOf(error)})`, remedy: REFUSED }
}

export function commitError({ outcome, message, remedy }: Failure): CommitError {
  const code = outcome === 'refused' ? 'internal' : 'unavailable'
  return new CommitError(
    outcome,
    new SluiceError(code, message, { remedy, ...(code === 'unavailable' ? { retryAfterMs: 1_000 } : {}) }),
  )
}

/** For what is no commit: opening, reading. */
export function unavailable(error: unknown, path: string): SluiceError {
  if (error instanceof SluiceError) return error
  const { message, remedy } = failureOf(error, path)
  return new SluiceError('unavailable', message, { remedy, cause: error })
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))
