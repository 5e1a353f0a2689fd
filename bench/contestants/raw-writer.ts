/** The comparator's writing thread: the statements of `src/store/sqlite/rows.ts`, without the checksums. */
import { DatabaseSync } from 'node:sqlite'
import { isMainThread, parentPort, workerData } from 'node:worker_threads'
import { watchLog } from '../../src/store/sqlite/checkpoints.ts'
import { inTransaction, WRITER_SETTINGS } from '../../src/store/sqlite/schema.ts'

/** A batch, flat, as Sluice sends it: each row begins with its kind. */
export type RawRows = (string | number | null)[]

export const NEW_ENTRY = 0 // account, seq, kind, body, private, hash
export const SET_CELL = 1 // id, body
export const NEW_REQUEST = 2 // id, account, requestId, expiresAt, body
export const SET_REQUEST = 3 // id, body
export const SET_CELL_DUE = 4 // id, dueAt, body
/** Stands where Sluice writes a checksum, in as many bytes. */
export const SUM = 0x7fff_fffe

if (!isMainThread) {
  const { path } = workerData as { path: string }
  const db = new DatabaseSync(path)
  db.exec(WRITER_SETTINGS)
  db.exec('pragma synchronous = full')
  const newEntry = db.prepare(
    'insert into journal (account, seq, kind, body, private, hash) values (?, ?, ?, ?, ?, ?)',
  )
  const setCell = db.prepare('update cell set sum = ?, body = ? where id = ?')
  const setCellDue = db.prepare('update cell set due_at = ?, sum = ?, body = ? where id = ?')
  const newRequest = db.prepare(
    'insert into request_1 (id, account, request_id, expires_at, sum, body) values (?, ?, ?, ?, ?, ?)',
  )
  const setRequest = db.prepare('update request_1 set expires_at = ?, sum = ?, body = ? where id = ?')

  const write = (rows: RawRows): void => {
    let at = 0
    const next = (): string | number | null => rows[at++] as string | number | null
    while (at < rows.length) {
      const kind = next()
      if (kind === NEW_ENTRY) newEntry.run(next(), next(), next(), next(), next(), next())
      else if (kind === SET_CELL) {
        const id = next()
        setCell.run(SUM, next(), id)
      } else if (kind === SET_CELL_DUE) {
        const id = next()
        setCellDue.run(next(), SUM, next(), id)
      } else if (kind === NEW_REQUEST) newRequest.run(next(), next(), next(), next(), SUM, next())
      else {
        const id = next()
        setRequest.run(null, SUM, next(), id)
      }
    }
  }
  const checkpoints = watchLog(db, path)
  parentPort?.on('message', (rows: RawRows) => {
    inTransaction(db, () => write(rows))
    parentPort?.postMessage('written')
    checkpoints.written()
  })
  parentPort?.postMessage('ready')
}
