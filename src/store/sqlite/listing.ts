import type { DatabaseSync, StatementSync } from 'node:sqlite'

/** Rows of requests by account: what the file itself has no index for. */
export interface Listing {
  /** Takes in what was written since the last time; other work goes on in between. */
  catchUp(): Promise<void>
  /** Requests of an account after one, by id: `[key, sum, body]`. */
  page(account: number, after: string, limit: number): readonly unknown[]
}

/** Rows taken in at once: about 5 ms. */
const SLICE = 4_000

/**
 * An audit wants each account's requests, and then all of them; so does the erasure of a person. An index for that in the
 * file would make every reserve write one page more, a tenth of the throughput; without any, listing the requests of
 * each account would read all requests once an account. So it is built when it is first asked for, in the connection's
 * own temporary tables, and then kept up by row id, because requests are only appended: about 1.5 s a million.
 */
export function createListing(db: DatabaseSync, generations: readonly number[]): Listing {
  db.exec(`
    drop table if exists temp.listing;
    create temp table listing (
      generation integer not null,
      account integer not null,
      request_id text not null,
      row integer not null,
      primary key (generation, account, request_id)
    ) without rowid;
  `)
  const newest = new Map<number, number>()
  const tables = generations.map((id) => ({
    id,
    last: array(
      db,
      `select max(id) from (select id from request_${id} where id > ? order by id limit ${SLICE})`,
    ),
    take: db.prepare(
      `insert or ignore into temp.listing select ${id}, account, request_id, id from request_${id} where id > ? and id <= ?`,
    ),
  }))
  const page = array(
    db,
    `select 'request:' || request_id, sum, body from (${generations
      .map(
        (
          id,
        ) => `select * from (select l.request_id, r.sum, r.body from temp.listing l join request_${id} r on r.id = l.row
          where l.generation = ${id} and l.account = ?1 and l.request_id > ?2 order by l.request_id limit ?3)`,
      )
      .join(' union all ')}) order by request_id limit ?3`,
  )
  let running: Promise<void> | undefined

  async function takeAll(): Promise<void> {
    for (const { id, last, take } of tables) {
      for (;;) {
        const from = newest.get(id) ?? 0
        const [to] = last.get(from) as unknown as [number | null]
        if (to === null) break
        take.run(from, to)
        newest.set(id, to)
        await new Promise((resolve) => setImmediate(resolve))
      }
    }
  }

  return {
    catchUp() {
      running ??= takeAll().finally(() => {
        running = undefined
      })
      return running
    },
    page: (account, after, limit) => page.all(account, after, limit),
  }
}

function array(db: DatabaseSync, sql: string): StatementSync {
  const statement = db.prepare(sql)
  statement.setReturnArrays(true)
  return statement
}
