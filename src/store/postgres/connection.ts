import pg, { type QueryArrayResult } from 'pg'
import { arrayOf, type Element } from './arrays.ts'
import { unavailable } from './failure.ts'

/** Values of a statement, and of a row. int8 comes as a number: all of ours are safe integers. */
export type Value = string | number | null | readonly (string | number | null)[]
export type Row = readonly (string | number | null)[]

/** A statement that is prepared once a connection, under its name. */
export interface Statement {
  readonly name: string
  readonly text: string
  /** Of each parameter that is an array, the type of its elements. */
  readonly arrays: readonly (Element | undefined)[]
}
export function statement(name: string, text: string): Statement {
  const arrays: (Element | undefined)[] = []
  for (const [, number, element] of text.matchAll(/\$(\d+)::(text|bigint|integer|smallint)\[\]/g))
    arrays[Number(number) - 1] = element as Element
  return { name: `sluice_${name}`, text, arrays }
}

/**
 * One connection. Statements are sent at once, without waiting for the ones before them (`pipeline`): what is asked for
 * together takes one round trip. `pg` because it is the driver that the field uses, typed, and pipelines.
 */
export interface Connection {
  run(statement: Statement, values?: readonly Value[]): Promise<readonly Row[]>
  /** A command in plain SQL; answers the command's tag. */
  exec(sql: string): Promise<string>
  readonly broken: boolean
  end(): Promise<void>
}

const INT8 = 20
const types = {
  getTypeParser: (oid: number, format?: 'text' | 'binary') =>
    oid === INT8 ? Number : (pg.types.getTypeParser(oid, format as 'text') as (value: string) => unknown),
}

const CONNECT_MS = 2_000
/** Longer than the server lets a statement take: who waits for this long is talking to nobody. */
const ANSWER_MS = 5_500
/**
 * A statement may take 5 s and wait 2 s for a lock: what waits longer is told, and retried. A session that stops in the
 * middle of a transaction is ended by the server, so that a node that hangs leaves nothing stuck.
 */
const SETTINGS = `
  set search_path to sluice;
  set statement_timeout = '5s';
  set lock_timeout = '2s';
  set idle_in_transaction_session_timeout = '10s';
  set jit = off;
  set plan_cache_mode = force_generic_plan;
  set enable_seqscan = off;
  set default_transaction_isolation = 'read committed';
`

/** `answerMs` 0 waits for ever, for a migration. Rejects with `unavailable`. */
export async function connect(url: string, name: string, answerMs = ANSWER_MS): Promise<Connection> {
  const client = new pg.Client({
    connectionString: url,
    application_name: name,
    connectionTimeoutMillis: CONNECT_MS,
    query_timeout: answerMs,
    keepAlive: true,
    pipeline: true,
    types,
  })
  let broken = false
  client.on('error', () => {
    broken = true
  })
  client.on('end', () => {
    broken = true
  })
  try {
    await client.connect()
    await client.query(SETTINGS)
  } catch (error) {
    broken = true
    client.end().catch(() => {})
    throw unavailable(error)
  }
  return {
    async run({ name, text, arrays }, values = []) {
      const result: QueryArrayResult = await client.query({
        name,
        text,
        values: values.map((value, place) => {
          const element = arrays[place]
          return element === undefined
            ? value
            : arrayOf(element, value as readonly (string | number | null)[])
        }),
        rowMode: 'array',
      })
      return result.rows as Row[]
    },
    exec: async (sql) => (await client.query(sql)).command,
    get broken() {
      return broken
    },
    end: () => client.end(),
  }
}
