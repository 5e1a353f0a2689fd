import pg from 'pg'
import { SluiceError } from '../../errors.ts'
import { CommitError, type CommitOutcome } from '../coalesce.ts'

/** A failure as a caller is told it, and what it means for a commit. */
interface Failure {
  readonly outcome: CommitOutcome
  readonly says: string
  readonly remedy: string
}

const AGAIN = 'Retry with the same id.'
const REFUSED: Failure = {
  outcome: 'refused',
  says: 'PostgreSQL refused the data',
  remedy: 'Nothing of this operation was written; report this, it is a defect in Sluice.',
}
const LOST: Failure = {
  outcome: 'unknown',
  says: 'the connection to PostgreSQL was lost',
  remedy: `${AGAIN} The answer tells what was committed.`,
}

/** By the code of the error, or by its class, the first two characters (PostgreSQL, Appendix A). */
const BY_CODE: Readonly<Record<string, Failure>> = {
  // Nothing was written, and run again it finds what the other wrote.
  '40': { outcome: 'unknown', says: 'another node was in the way', remedy: AGAIN },
  '55P03': { outcome: 'unavailable', says: 'another node holds the account for too long', remedy: AGAIN },
  '57014': { outcome: 'unavailable', says: 'a statement took too long', remedy: AGAIN },
  '53100': {
    outcome: 'unavailable',
    says: 'the disk of PostgreSQL is full',
    remedy: 'Make room on the disk; Sluice goes on by itself.',
  },
  '53200': {
    outcome: 'unavailable',
    says: 'PostgreSQL has no room for more locks, or no memory',
    remedy: 'Raise max_locks_per_transaction (each node takes up to 384 locks), or give it more memory.',
  },
  '53300': {
    outcome: 'unavailable',
    says: 'PostgreSQL has no connection left',
    remedy: 'Raise max_connections, or run fewer nodes: each takes up to six.',
  },
  '53': { outcome: 'unavailable', says: 'PostgreSQL is short of something', remedy: AGAIN },
  '25006': {
    outcome: 'unavailable',
    says: 'this PostgreSQL can only be read',
    remedy: 'Connect to the primary.',
  },
  '25P03': { outcome: 'unavailable', says: 'a transaction stood still for too long', remedy: AGAIN },
  XX: { outcome: 'unavailable', says: 'PostgreSQL had an error within', remedy: 'See its log.' },
  '57': { outcome: 'unknown', says: 'PostgreSQL is stopping or starting', remedy: AGAIN },
  '58': { outcome: 'unavailable', says: 'PostgreSQL had an error of its system', remedy: 'See its log.' },
  '08': LOST,
  '22': REFUSED,
  '23': REFUSED,
  '28': {
    outcome: 'unavailable',
    says: 'PostgreSQL refused the login',
    remedy: 'Check user and password in the URL.',
  },
  '3D000': {
    outcome: 'unavailable',
    says: 'the database does not exist',
    remedy: 'Make it with createdb, or name another.',
  },
  '42501': {
    outcome: 'unavailable',
    says: 'the user may not do this',
    remedy: 'Make the user the owner of the database, or of the schema sluice.',
  },
}

/** A wait for a lock was as long as `lock_timeout` lets it be. */
export const isLockTimeout = (error: unknown): boolean => (error as { code?: unknown }).code === '55P03'

/** `sent`: the commit may have reached the server, so that a lost connection leaves its outcome open. */
export function failureOf(error: unknown, sent: boolean): Failure {
  // Only what PostgreSQL says has a code of its own: `EPIPE` of a socket looks like one.
  const code = error instanceof pg.DatabaseError ? error.code : undefined
  if (code !== undefined) {
    const known = BY_CODE[code] ?? BY_CODE[code.slice(0, 2)]
    if (known !== undefined) return known.outcome === 'unknown' && !sent ? away(known) : known
    return REFUSED
  }
  return sent ? LOST : away(LOST)
}

const away = (failure: Failure): Failure => ({
  ...failure,
  outcome: 'unavailable',
  remedy: 'See that PostgreSQL runs and can be reached; Sluice goes on by itself.',
})

export function commitError(error: unknown, sent: boolean): CommitError {
  if (error instanceof CommitError) return error
  if (error instanceof SluiceError) return new CommitError('unavailable', error)
  const { outcome, says, remedy } = failureOf(error, sent)
  const code = outcome === 'refused' ? 'internal' : 'unavailable'
  return new CommitError(
    outcome,
    new SluiceError(code, `${says} (${messageOf(error)})`, {
      remedy,
      cause: error,
      ...(code === 'unavailable' ? { retryAfterMs: 1_000 } : {}),
    }),
  )
}

/** For what is no commit: opening, reading. */
export function unavailable(error: unknown): SluiceError {
  return error instanceof SluiceError ? error : commitError(error, false).answer
}

function messageOf(error: unknown): string {
  if (error instanceof AggregateError && error.message === '') return String(error.errors[0])
  return error instanceof Error ? error.message : String(error)
}
