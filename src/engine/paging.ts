import { SluiceError } from '../errors.ts'
import type { List, PageQuery } from '../wire.ts'

export const DEFAULT_LIMIT = 50
export const MAX_LIMIT = 500

/** Lets others in between the pages of a long read. */
export const breathe = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

export interface Window {
  readonly limit: number
  readonly after: string | undefined
}

export function pageOf(query: PageQuery): Window {
  const limit = query.limit ?? DEFAULT_LIMIT
  if (!Number.isInteger(limit) || limit < 1 || limit > MAX_LIMIT) {
    throw new SluiceError('invalid', '/limit: not a page size', {
      path: '/limit',
      remedy: `send an integer from 1 to ${MAX_LIMIT}`,
    })
  }
  return { limit, after: query.cursor === undefined ? undefined : readCursor(query.cursor) }
}

/** Cursors are opaque to callers; inside they are the place of the last item. */
export const cursorOf = (place: string): string => Buffer.from(place).toString('base64url')

function readCursor(cursor: string): string {
  const place = Buffer.from(cursor, 'base64url').toString()
  if (place !== '' && cursorOf(place) === cursor) return place
  throw new SluiceError('invalid', '/cursor: not a cursor', {
    path: '/cursor',
    remedy: 'send the `next` of the page before, unchanged',
  })
}

/** A page of items that were read with one more than the limit. */
export function listOf<S, T>(
  read: readonly S[],
  limit: number,
  placeOf: (item: S) => string,
  view: (item: S) => T,
): List<T> {
  const items = read.slice(0, limit)
  const last = items.at(-1)
  return {
    items: items.map(view),
    next: read.length > limit && last !== undefined ? cursorOf(placeOf(last)) : null,
  }
}

/** Integer cursors, for numbered things. */
export function numberAfter(after: string | undefined): number | undefined {
  if (after === undefined) return undefined
  const number = Number(after)
  if (Number.isSafeInteger(number) && number >= 0) return number
  throw new SluiceError('invalid', '/cursor: not a cursor of this list', {
    path: '/cursor',
    remedy: 'send the `next` of the page before, unchanged',
  })
}
