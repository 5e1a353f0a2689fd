import type { DatabaseSync } from 'node:sqlite'
import type { Millis } from '../../units.ts'
import type { RowWriter } from './rows.ts'
import { generations, inTransaction, openGeneration } from './schema.ts'

/**
 * Drops generations whose requests were all made before an instant, and begins a new one when the present one is as old
 * as that: asked with `now − horizon`, there are two at most, and an id is protected between one horizon and two. Holds
 * do not live as long as a generation; should one be open all the same, it moves on to the present generation.
 */
export function rotate(db: DatabaseSync, rows: RowWriter, instant: Millis, now: Millis): void {
  const all = generations(db)
  const current = all.at(-1)
  if (current === undefined) throw new Error('there is no generation of requests')
  const begins = current.openedAt < instant
  const ended = all.filter((generation) => generation.closedAt !== null && generation.closedAt < instant)
  if (!begins && ended.length === 0) return
  inTransaction(db, () => {
    const present = begins ? current.id + 1 : current.id
    if (begins) {
      openGeneration(db, present, now)
      db.prepare('update generation set closed_at = ? where id = ?').run(now, current.id)
    }
    for (const { id } of ended) {
      rows.forget(id)
      db.exec(`
        insert into request_${present} (account, request_id, expires_at, sum, body)
          select account, request_id, expires_at, sum, body from request_${id} where expires_at is not null;
        drop table request_${id};
        delete from generation where id = ${id};
      `)
    }
  })
}
