/** Lists, page by page, until there are as many as wanted. */
import { type Command, Option } from 'commander'
import type { List, PageQuery } from '../wire.ts'
import { remark } from './output.ts'
import { whole } from './reading.ts'

export interface Listing {
  readonly limit: number
  readonly cursor?: string
}

/** Adds `--limit` and `--cursor`. */
export function listsPages(command: Command): Command {
  return command
    .addOption(new Option('--limit <number>', 'how many at most').default(100).argParser(whole(1, 1_000_000)))
    .option('--cursor <cursor>', 'go on where a listing ended: its `next`')
}

/** The most that a server gives at once. */
export const PAGE = 500

export async function collect<T>(
  { limit, cursor }: Listing,
  page: (query: PageQuery) => Promise<List<T>>,
): Promise<List<T>> {
  const items: T[] = []
  let next: string | null = cursor ?? null
  do {
    const wanted = Math.min(PAGE, limit - items.length)
    const found: List<T> = await page({ limit: wanted, ...(next !== null && { cursor: next }) })
    items.push(...found.items)
    next = found.next
  } while (next !== null && items.length < limit)
  return { items, next }
}

/** A table does not show that there is more; this does. */
export function tellMore(list: List<unknown>): void {
  if (list.next !== null) remark(`There are more: add --cursor ${list.next} to go on.`)
}
