import type { DatabaseSync } from 'node:sqlite'
import type { RefusalLine } from '../../store.ts'
import { inTransaction } from './schema.ts'

export interface Refusals {
  add(lines: readonly RefusalLine[]): void
  erase(account: string, dimension: string, value: string): void
}

/** Writes the bounded log of refusals: a ring of row ids, in which the oldest lines make room for the newest. */
export function keepRefusals(log: DatabaseSync, durable: DatabaseSync, keep: number): Refusals {
  const insert = log.prepare(
    'insert into refusal (account, request_id, subject, reason, at, count, answer) values (?, ?, ?, ?, ?, ?, ?)',
  )
  const trim = log.prepare('delete from refusal where id <= ?')
  const ofAccount = durable.prepare('select id, subject from refusal where account = ?')
  const drop = durable.prepare('delete from refusal where id = ?')

  return {
    add(lines) {
      inTransaction(log, () => {
        let newest = 0
        for (const { account, requestId, subject, reason, at, count, answer } of lines) {
          const { lastInsertRowid } = insert.run(
            account,
            requestId,
            JSON.stringify(subject),
            reason,
            at,
            count,
            answer,
          )
          newest = Number(lastInsertRowid)
        }
        trim.run(newest - keep)
      })
    },
    erase(account, dimension, value) {
      inTransaction(durable, () => {
        for (const row of ofAccount.all(account) as unknown as { id: number; subject: string }[]) {
          const subject = JSON.parse(row.subject) as Record<string, string>
          if (subject[dimension] === value) drop.run(row.id)
        }
      })
    },
  }
}
