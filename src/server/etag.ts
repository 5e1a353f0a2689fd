/** Entity tags (RFC 9110, section 8.8.3): the number of a revision or version, quoted. */
import { SluiceError } from '../errors.ts'

export const etagOf = (revision: number): string => `"${revision}"`

/**
 * The number in an `If-Match`. `*` matches whatever is there. Comparison is strong and of one tag, so a weak tag, a list
 * or a tag that was never given out cannot be the current one: `precondition_failed`.
 */
export function ifMatch(header: string | undefined): number | '*' | undefined {
  if (header === undefined) return undefined
  const text = header.trim()
  if (text === '*') return '*'
  const digits = /^"(0|[1-9][0-9]{0,14})"$/.exec(text)?.[1]
  if (digits !== undefined) return Number(digits)
  throw new SluiceError('precondition_failed', 'The entity tag is not one that is given out here.', {
    path: '/if-match',
    remedy: 'Read it again, and send its ETag as it came: one strong tag such as "3".',
  })
}
