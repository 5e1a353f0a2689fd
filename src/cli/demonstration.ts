/** What `serve --demo` adds: a few accounts with credits, a key that stays the same, and calls that work as printed. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Engine } from '../engine.ts'
import { SluiceError } from '../errors.ts'
import { parseMicros } from '../units.ts'
import type { AccountView } from '../wire.ts'
import { OPERATOR } from './http.ts'
import { bold, facts, remark, table } from './output.ts'
import { PACKAGE } from './package.ts'
import { keptHere, type StoreAddress } from './stores.ts'

export const DEMO_POLICY = fileURLToPath(new URL('examples/codex-and-sora.yaml', PACKAGE))

const ACCOUNTS = [
  { id: 'ada', plan: 'plus', purchased: '500', who: 'a developer who bought credits' },
  { id: 'bo', plan: 'free', purchased: undefined, who: 'somebody who tries it out' },
  { id: 'cy', plan: 'pro', purchased: '200', who: 'a heavy user, with overage after the credits' },
  { id: 'acme', plan: 'enterprise', purchased: undefined, who: 'a company: name a user and a team' },
] as const

/** Below it the first account gets more, so that the printed calls are still admitted after many starts. */
const ENOUGH_MICROS = 200_000_000

/** Sees to accounts and key, and answers what is printed at start. */
export async function demonstrate(
  engine: Engine,
  url: string,
  address: StoreAddress,
  kept: string,
): Promise<string> {
  const accounts: AccountView[] = []
  for (const account of ACCOUNTS) accounts.push(await ensureAccount(engine, account))
  const { secret, file } = await developmentKey(engine, address)
  const now = await engine.now()
  await topUp(engine, accounts[0], now)
  const lines = callsToTry(url, secret, `try-${now.toString(36)}`)
  return [
    bold(`Sluice listens on ${url}`),
    facts([
      ['state', address.kind === 'memory' ? kept : `${kept}, found again after a restart`],
      ['policy', `${relative('.', DEMO_POLICY)}, version ${(await engine.policy()).version}`],
      ['key', file === undefined ? secret : `${secret} (admin; kept in ${file})`],
    ]),
    '',
    table(
      ['ACCOUNT', 'PLAN', { title: 'CREDITS', align: 'right' }, 'WHO'],
      accounts.map(({ id, plan, credits }, at) => [id, plan, credits.available, ACCOUNTS[at]?.who]),
    ),
    '',
    bold('Try it in another terminal, line by line:'),
    ...lines,
    '',
    'All calls: GET /openapi.json. Ctrl-C ends it.',
  ].join('\n')
}

async function ensureAccount(
  engine: Engine,
  { id, plan, purchased }: (typeof ACCOUNTS)[number],
): Promise<AccountView> {
  try {
    return await engine.account(id)
  } catch (error) {
    if (!(error instanceof SluiceError) || error.code !== 'account_unknown') throw error
  }
  await engine.createAccount({ id, plan }, OPERATOR)
  if (purchased !== undefined) {
    const grant = {
      id: 'demo-purchase',
      kind: 'purchased',
      amount: purchased,
      reason: 'demonstration',
    } as const
    await engine.grant(id, grant, OPERATOR)
  }
  return engine.account(id)
}

async function topUp(engine: Engine, account: AccountView | undefined, now: number): Promise<void> {
  if (account === undefined || (parseMicros(account.credits.available) ?? 0) >= ENOUGH_MICROS) return
  const grant = {
    id: `demo-${now.toString(36)}`,
    kind: 'promo',
    amount: '500',
    reason: 'demonstration',
  } as const
  await engine.grant(account.id, grant, OPERATOR)
}

/**
 * The same key at every start: its secret is kept beside the store, for this user alone; that of a PostgreSQL in the folder that a
 * store has by default. This is for trying out; every other key's secret is shown once and kept nowhere.
 */
async function developmentKey(
  engine: Engine,
  address: StoreAddress,
): Promise<{ secret: string; file?: string }> {
  const file = keptHere(address, 'development-key')
  if (file !== undefined && existsSync(file)) {
    const secret = readFileSync(file, 'utf8').trim()
    if (secret !== '' && (await engine.authenticate(secret)) !== undefined) return { secret, file }
  }
  const { secret } = await makeKey(engine)
  if (file === undefined) return { secret }
  try {
    mkdirSync(dirname(file), { recursive: true })
    writeFileSync(file, `${secret}\n`, { mode: 0o600 })
    return { secret, file }
  } catch (error) {
    // A database elsewhere is served from a folder that nobody may write to, too.
    remark(`The key is not kept, and the next start makes another: ${(error as Error).message}`)
    return { secret }
  }
}

/** Where the file of an earlier key is lost, its id is taken: the next gets a number. */
async function makeKey(engine: Engine): Promise<{ secret: string }> {
  for (let number = 1; ; number += 1) {
    try {
      const id = number === 1 ? 'development' : `development-${number}`
      return await engine.createKey({ id, role: 'admin' }, OPERATOR)
    } catch (error) {
      if (!(error instanceof SluiceError) || error.code !== 'conflict') throw error
    }
  }
}

/**
 * One request, whole: 118.75 CU are held, of which the allowance of five hours covers 75 and credits the rest; then what
 * was really used is charged, and the rest goes back. Ids are new at each start: the same id twice is the same request.
 */
function callsToTry(url: string, secret: string, id: string): readonly string[] {
  const auth = `-H 'authorization: Bearer ${secret}'`
  const post = (path: string, body: object): string =>
    `curl -s -w '\\n' ${url}${path} ${auth} -H 'content-type: application/json' -d '${JSON.stringify(body)}'`
  return [
    post('/v1/reserve', {
      request_id: id,
      account: 'ada',
      subject: { user: 'ada' },
      feature: 'codex.task',
      attributes: { model: 'gpt-5.5', mode: 'fast' },
      estimate: { input_tokens: 200000, output_tokens: 30000 },
    }),
    post('/v1/settle', {
      request_id: id,
      account: 'ada',
      usage: { input_tokens: 180000, output_tokens: 20000 },
    }),
    `curl -s -w '\\n' ${url}/v1/accounts/ada/requests/${id} ${auth}`,
  ]
}
