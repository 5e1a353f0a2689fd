// Bad input: each gets a code, a path and a remedy, and changes nothing.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { ERRORS, SluiceError } from '../errors.ts'
import { memoryStore } from '../store/memory.ts'
import { add, MAX_MICROS } from '../units.ts'
import { POLICY } from './fixtures/policy.ts'
import { type Answer, createWorld, type World } from './fixtures/world.ts'
import { asSluiceError } from './problem.ts'

let world: World
before(async () => {
  world = await createWorld({
    storeOf: (now) => memoryStore({ now, strict: true }),
    policy: POLICY,
    accounts: [
      { id: 'acme', plan: 'open' },
      { id: 'plus', plan: 'plus' },
    ],
  })
  await world.post('/v1/accounts/acme/grants', { id: 'g', kind: 'free', amount: '1000000' })
})
after(() => world.close())

/** All that is known, to see that nothing of it moved. */
async function state(): Promise<unknown> {
  const journal = await world.engine.journal({ limit: 500 })
  return [
    journal,
    await world.engine.account('acme'),
    await world.engine.account('plus'),
    await world.engine.keys({}),
  ]
}

/** Told whole, and in nothing more than it should be. */
function assertProblem(
  answer: Answer,
  status: number,
  code: string,
  path: string | undefined,
  what: string,
): void {
  const { body } = answer
  assert.deepEqual([answer.status, body?.code], [status, code], `${what}: ${answer.text}`)
  if (path !== undefined) assert.equal(body.path, path, `${what}: ${answer.text}`)
  assert.match(answer.headers['content-type'] ?? '', /^application\/problem\+json/)
  assert.equal(typeof body.path, 'string', what)
  assert.ok(body.remedy.length > 10, `${what}: ${answer.text}`)
  assert.equal(body.title, ERRORS[code as keyof typeof ERRORS].says)
  assert.equal(body.type, `/openapi.json#/components/examples/${code}`)
  assert.doesNotMatch(answer.text, /node_modules|\.ts:\d|at Object/)
}

const reserve = { request_id: 'r', account: 'acme', feature: 'chat', attributes: { model: 'big' } }
const lone = '\ud800'
type Bad = readonly [
  what: string,
  method: string,
  url: string,
  body: unknown,
  status: number,
  code: string,
  path?: string,
]

const post = (what: string, url: string, body: unknown, code: string, path: string, status = 400): Bad => [
  what,
  'POST',
  url,
  body,
  status,
  code,
  path,
]
const bad = (what: string, more: object, path: string, code = 'invalid', status = 400): Bad =>
  post(what, '/v1/reserve', { ...reserve, ...more }, code, path, status)

const UNKNOWN: readonly Bad[] = [
  bad('unknown account', { account: 'nobody', cost: 1 }, '/account', 'account_unknown', 404),
  bad('unknown feature', { feature: 'none', cost: 1 }, '/feature', 'feature_unknown'),
  bad('nothing prices it', { attributes: { model: 'none' } }, '/attributes', 'price_missing'),
  bad('no estimate, and no default', { feature: 'video' }, '/estimate', 'estimate_missing'),
  bad(
    'a dimension that the plan counts by',
    { account: 'plus', cost: 1 },
    '/subject/user',
    'subject_missing',
  ),
  post('unknown plan', '/v1/accounts', { id: 'new', plan: 'none' }, 'plan_unknown', '/plan'),
  post(
    'unknown kind',
    '/v1/accounts/acme/grants',
    { id: 'g2', kind: 'gift', amount: '1' },
    'invalid',
    '/kind',
  ),
  post(
    'unknown request',
    '/v1/extend',
    { request_id: 'none', account: 'acme', step: 1 },
    'request_unknown',
    '/request_id',
    404,
  ),
  post(
    'unknown request, settled',
    '/v1/settle',
    { request_id: 'none', account: 'acme', cost: 1 },
    'request_unknown',
    '/request_id',
    404,
  ),
  post(
    'unknown account, to erase in',
    '/v1/accounts/nobody/erase',
    { dimension: 'user', value: 'u1' },
    'account_unknown',
    '/account',
    404,
  ),
  post(
    'unknown account, to repair',
    '/v1/accounts/nobody/repair',
    undefined,
    'account_unknown',
    '/account',
    404,
  ),
  post('unknown grant', '/v1/accounts/acme/grants/none/revoke', {}, 'grant_unknown', '/grant', 404),
  post('unknown key', '/v1/keys/none/revoke', undefined, 'key_unknown', '/id', 404),
  ['unknown account, read', 'GET', '/v1/accounts/nobody', undefined, 404, 'account_unknown', '/account'],
  [
    'unknown request, read',
    'GET',
    '/v1/accounts/acme/requests/none',
    undefined,
    404,
    'request_unknown',
    '/request_id',
  ],
  ['unknown request, anywhere', 'GET', '/v1/requests/none', undefined, 404, 'request_unknown', '/request_id'],
  ['unknown policy version', 'GET', '/v1/policy?version=99', undefined, 404, 'not_found', '/version'],
  ['unknown address', 'GET', '/v2/reserve', undefined, 404, 'not_found', ''],
  ['unknown method', 'DELETE', '/v1/accounts/acme', undefined, 404, 'not_found', ''],
]

const AMOUNTS: readonly Bad[] = [
  ...[
    '-1',
    '1e3',
    '0x1',
    '',
    ' 1',
    '1,5',
    '.5',
    '1.',
    '01',
    'NaN',
    'Infinity',
    '1.0000001',
    '9007199254.740992',
    `1${'0'.repeat(400)}`,
  ].map((cost) => bad(`a cost of ${JSON.stringify(cost.slice(0, 20))}`, { cost }, '/cost')),
  ...[-1, 0.0000001, 1e15, 1.123_456_7, 1e300].map((cost) => bad(`a cost of ${cost}`, { cost }, '/cost')),
  ...[true, null, [], {}].map((cost) => bad(`a cost of ${JSON.stringify(cost)}`, { cost }, '/cost')),
  bad('a negative quantity', { estimate: { input_tokens: -1 } }, '/estimate/input_tokens'),
  bad('a quantity that is no number', { estimate: { input_tokens: 'many' } }, '/estimate/input_tokens'),
  bad('a quantity of another type', { estimate: { input_tokens: [1] } }, '/estimate/input_tokens'),
  bad('quantities in a list', { estimate: [1] }, '/estimate'),
  bad(
    'too many quantities',
    { estimate: Object.fromEntries(Array.from({ length: 33 }, (_, i) => [`q${i}`, 1])) },
    '/estimate',
  ),
  bad('estimate and cost', { estimate: { input_tokens: 1 }, cost: 1 }, '/cost'),
  bad(
    'a cost beyond what can be counted',
    { estimate: { input_tokens: '9007199254.740991', output_tokens: '9007199254.740991' } },
    '',
    'amount_overflow',
  ),
  post(
    'a grant of nothing',
    '/v1/accounts/acme/grants',
    { id: 'g2', kind: 'free', amount: '0' },
    'invalid',
    '/amount',
  ),
  post(
    'a negative grant',
    '/v1/accounts/acme/grants',
    { id: 'g2', kind: 'free', amount: '-5' },
    'invalid',
    '/amount',
  ),
]

/** The first of the two fields that is not as it should be. */
const erasePath = (body: object | undefined): string =>
  body === undefined ? '' : 'dimension' in body ? '/value' : '/dimension'

const FIELDS: readonly Bad[] = [
  post('a missing field', '/v1/reserve', { request_id: 'r', account: 'acme' }, 'invalid', '/feature'),
  bad('an alien field', { colour: 'red' }, '/colour'),
  bad('an alien field with a slash and a tilde', { 'a/b~': 1 }, '/a~1b~0'),
  bad('a time that is no number', { ttl_ms: '5' }, '/ttl_ms'),
  bad('a time with a fraction', { ttl_ms: 1.5 }, '/ttl_ms'),
  bad('a time before all times', { ttl_ms: -1 }, '/ttl_ms'),
  bad('a hold of no length', { ttl_ms: 0, cost: 1 }, '/ttl_ms'),
  bad('a flag that is no flag', { dry_run: 'true' }, '/dry_run'),
  bad(
    'too many dimensions',
    { subject: Object.fromEntries(Array.from({ length: 9 }, (_, i) => [`d${i}`, 'x'])) },
    '/subject',
  ),
  bad('a subject in a text', { subject: 'u1' }, '/subject'),
  bad('a dimension that is no text', { subject: { user: 7 } }, '/subject/user'),
  bad(
    'too many attributes',
    { attributes: Object.fromEntries(Array.from({ length: 17 }, (_, i) => [`a${i}`, 'x'])) },
    '/attributes',
  ),
  bad('an attribute in an attribute', { attributes: { model: { name: 'big' } } }, '/attributes/model'),
  post('a step of zero', '/v1/extend', { request_id: 'r', account: 'acme', step: 0 }, 'invalid', '/step'),
  post(
    'neither usage nor cost',
    '/v1/record',
    { request_id: 'r', account: 'acme', feature: 'chat' },
    'invalid',
    '/usage',
  ),
  post(
    'an instant beyond the calendar',
    '/v1/record',
    { request_id: 'r', account: 'acme', feature: 'chat', cost: 1, at: 1e300 },
    'invalid',
    '/at',
  ),
  post(
    'an instant before the horizon',
    '/v1/record',
    { request_id: 'r', account: 'acme', feature: 'chat', cost: 1, at: 1 },
    'too_old',
    '/at',
  ),
  post('a list as the body', '/v1/reserve', [], 'invalid', ''),
  post('a text as the body', '/v1/reserve', '"r"', 'invalid', ''),
  post('null as the body', '/v1/reserve', 'null', 'invalid', ''),
  post('no body', '/v1/reserve', undefined, 'invalid', ''),
  post('two dimensions to override', '/v1/accounts/acme/overrides', {}, 'not_found', '', 404),
  [
    'two dimensions to override',
    'PUT',
    '/v1/accounts/acme/overrides',
    { subject: { user: 'u', team: 't' }, overrides: [], reason: 'x' },
    400,
    'invalid',
    '/subject',
  ],
  [
    'an override of nothing',
    'PUT',
    '/v1/accounts/acme/overrides',
    { overrides: [], reason: 'x' },
    400,
    'invalid',
    '/overrides',
  ],
  ['a status that is none', 'PATCH', '/v1/accounts/acme', { status: 'frozen' }, 400, 'invalid', '/status'],
  [
    'a note that is no text',
    'PATCH',
    '/v1/accounts/acme',
    { metadata: { a: 5 } },
    400,
    'invalid',
    '/metadata/a',
  ],
  ['a clock that is none', 'PUT', '/v1/test-clock', { now: 'soon' }, 400, 'invalid', '/now'],
  ...[undefined, {}, { dimension: 'user' }, { value: 'u1' }, { dimension: 'user', value: 7 }].map((body) =>
    post(`${JSON.stringify(body)} to erase`, '/v1/accounts/acme/erase', body, 'invalid', erasePath(body)),
  ),
  post(
    'a subject to erase',
    '/v1/accounts/acme/erase',
    { dimension: 'user', value: 'u1', subject: {} },
    'invalid',
    '/subject',
  ),
  post('a role that is none', '/v1/keys', { id: 'k', role: 'root' }, 'invalid', '/role'),
]

const IDS: readonly Bad[] = [
  ...['', ' ', 'a b', 'a\u0000', 'ä', '\u007f', '\n', lone, 'x'.repeat(129), 'a\tb', '\u202e'].flatMap(
    (id) => [
      bad(`a request id of ${JSON.stringify(id.slice(0, 8))}`, { request_id: id }, '/request_id'),
      bad(`an account of ${JSON.stringify(id.slice(0, 8))}`, { account: id }, '/account'),
      bad(
        `a subject of ${JSON.stringify(id.slice(0, 8))}`,
        { cost: 1, subject: { user: id } },
        '/subject/user',
      ),
    ],
  ),
  ...['', 'a b', 'ä', '__proto__', 'x'.repeat(129)].flatMap((id) => [
    post(
      `a dimension to erase of ${JSON.stringify(id.slice(0, 9))}`,
      '/v1/accounts/acme/erase',
      { dimension: id, value: 'u1' },
      'invalid',
      '/dimension',
    ),
    post(
      `a value to erase of ${JSON.stringify(id.slice(0, 9))}`,
      '/v1/accounts/acme/erase',
      { dimension: 'user', value: id },
      'invalid',
      '/value',
    ),
  ]),
  ...['erase', 'repair'].flatMap((call) => {
    const body = call === 'erase' ? { dimension: 'user', value: 'u1' } : undefined
    return [
      post(`${call} in @system`, `/v1/accounts/@system/${call}`, body, 'invalid', '/account'),
      post(`${call} in an id that is none`, `/v1/accounts/a%20b/${call}`, body, 'invalid', '/id'),
    ]
  }),
  bad('a request id that is no text', { request_id: 7 }, '/request_id'),
  bad('a note with NUL in an attribute', { cost: 1, attributes: { model: 'a\u0000' } }, '/attributes/model'),
  bad('a lone surrogate in an attribute', { cost: 1, attributes: { model: lone } }, '/attributes/model'),
  bad('an endless attribute', { cost: 1, attributes: { model: 'x'.repeat(257) } }, '/attributes/model'),
  post(
    'a lone surrogate in a reason',
    '/v1/release',
    { request_id: 'r', account: 'acme', reason: lone },
    'invalid',
    '/reason',
  ),
  post(
    'an endless reason',
    '/v1/release',
    { request_id: 'r', account: 'acme', reason: 'x'.repeat(257) },
    'invalid',
    '/reason',
  ),
  post('an account of Sluice’s own', '/v1/accounts', { id: '@system', plan: 'open' }, 'invalid', '/id'),
  ['an id in the path that is none', 'GET', '/v1/accounts/a%20b', undefined, 400, 'invalid', '/id'],
  ['an endless id in the path', 'GET', `/v1/accounts/${'x'.repeat(129)}`, undefined, 400, 'invalid', '/id'],
  [
    'an id in the path beyond all measure',
    'GET',
    `/v1/accounts/${'x'.repeat(5000)}`,
    undefined,
    400,
    'invalid',
    '',
  ],
  ['a path that is not UTF-8', 'GET', '/v1/accounts/%ff', undefined, 400, 'invalid', ''],
  ['a path that is not encoded', 'GET', '/v1/accounts/%zz', undefined, 400, 'invalid', ''],
]

const ZONES: readonly Bad[] = [
  'Mars/Olympus',
  '',
  'Europe/Berlin ',
  '+25:00',
  '../etc/passwd',
  'x'.repeat(300),
].map((time_zone) =>
  post(
    `a zone of ${JSON.stringify(time_zone.slice(0, 20))}`,
    '/v1/accounts',
    { id: 'new', plan: 'open', time_zone },
    'invalid',
    '/time_zone',
  ),
)

const QUERIES: readonly Bad[] = [
  ...['0', '-1', '501', '1.5', '1e1', 'ten', ''].map(
    (limit): Bad => [
      `a limit of ${limit}`,
      'GET',
      `/v1/accounts?limit=${limit}`,
      undefined,
      400,
      'invalid',
      '/limit',
    ],
  ),
  ['a limit that comes twice', 'GET', '/v1/accounts?limit=1&limit=2', undefined, 400, 'invalid', '/limit'],
  ['a parameter that is unknown', 'GET', '/v1/accounts?colour=red', undefined, 400, 'invalid', '/colour'],
  ['a cursor that is none', 'GET', '/v1/accounts?cursor=%21', undefined, 400, 'invalid', '/cursor'],
  [
    'a cursor of another list',
    'GET',
    '/v1/accounts/acme/entries?cursor=YWNtZQ',
    undefined,
    400,
    'invalid',
    '/cursor',
  ],
  ['a kind of entry that is none', 'GET', '/v1/entries?kind=usage,gift', undefined, 400, 'invalid', '/kind'],
  ['an order that is none', 'GET', '/v1/accounts/acme/entries?order=up', undefined, 400, 'invalid', '/order'],
  ['a usage without its end', 'GET', '/v1/accounts/acme/usage?from=0', undefined, 400, 'invalid', '/to'],
  [
    'an instant in words',
    'GET',
    '/v1/accounts/acme/usage?from=yesterday&to=1',
    undefined,
    400,
    'invalid',
    '/from',
  ],
  ['a negative instant', 'GET', '/v1/accounts/acme/usage?from=-1&to=1', undefined, 400, 'invalid', '/from'],
  ['an end before its beginning', 'GET', '/v1/accounts/acme/usage?from=2&to=1', undefined, 400, 'invalid'],
  [
    'a bucket that is none',
    'GET',
    '/v1/accounts/acme/usage?from=0&to=1&bucket=fortnight',
    undefined,
    400,
    'invalid',
    '/bucket',
  ],
  [
    'a group that is none',
    'GET',
    '/v1/accounts/acme/usage?from=0&to=1&group_by=colour',
    undefined,
    400,
    'invalid',
    '/group_by',
  ],
]

const TABLES = { UNKNOWN, AMOUNTS, FIELDS, IDS, ZONES, QUERIES }
for (const [name, table] of Object.entries(TABLES)) {
  test(`bad input, ${name.toLowerCase()}: a problem for each of ${table.length}, and no change`, async () => {
    const before = await state()
    for (const [what, method, url, body, status, code, path] of table) {
      const answer = await world.ask(method, url, body === undefined ? {} : { body })
      assertProblem(answer, status, code, path, what)
    }
    assert.deepEqual(await state(), before)
  })
}

test('each bad operation of a batch gets its own problem, and the good ones their answers', async () => {
  const operations = [
    { op: 'record', request_id: 'good-1', account: 'acme', feature: 'chat', cost: '1' },
    ...[...AMOUNTS, ...FIELDS, ...IDS]
      .filter(([, , url, body]) => url === '/v1/reserve' && typeof body === 'object' && !Array.isArray(body))
      .map(([, , , body]) => ({ op: 'reserve', ...(body as object) })),
    { op: 'transfer' },
    {},
    null,
    'reserve',
    { op: 'record', request_id: 'good-2', account: 'acme', feature: 'chat', cost: '1' },
  ]
  const { status, body } = await world.post('/v1/batch', { operations })
  assert.equal(status, 200)
  assert.equal(body.results.length, operations.length)
  const [first, ...rest] = body.results
  const last = rest.pop()
  assert.deepEqual([first.status, last.status], [200, 200])
  for (const result of rest) {
    assert.equal(result.status, 400)
    assert.ok(result.body.code && result.body.remedy && typeof result.body.path === 'string')
  }
  assert.equal(rest.at(-1).body.path, '/op')
})

describe('bodies that are no JSON of the right kind', () => {
  const send = (body: string | Buffer, headers: Record<string, string> = {}, url = '/v1/reserve') =>
    world.ask('POST', url, { body, headers })
  const whole = JSON.stringify({ ...reserve, cost: 1 })

  test('400: not JSON, with the position and without the text', async () => {
    for (const body of [
      '{',
      '{"a":}',
      "{'a':1}",
      '{"a":1,}',
      '{"a":NaN}',
      '{"a":01}',
      'SECRET',
      '{"a":1}{"b":2}',
    ]) {
      const answer = await send(body)
      assertProblem(answer, 400, 'invalid', '', body)
      assert.ok(!answer.text.includes('SECRET'))
    }
    assert.match((await send('{"a":1,}')).body.detail, /position 7/)
  })

  test('400: not UTF-8', async () => {
    const bytes = Buffer.from(whole.replace('big', 'b\u00ffg'), 'latin1')
    assertProblem(await send(bytes), 400, 'invalid', '', 'latin1')
  })

  test('400: names that reach a prototype, with their path, however written', async () => {
    const cases: readonly [string, string][] = [
      ['{"__proto__":{"admin":true}}', '/__proto__'],
      ['{"subject":{"__proto__":"x"}}', '/subject/__proto__'],
      ['{"a":[{"b":{"\\u005f_proto__":1}}]}', '/a/0/b/__proto__'],
      ['{"constructor":{"prototype":{"x":1}}}', '/constructor/prototype'],
    ]
    for (const [body, path] of cases) assertProblem(await send(body), 400, 'invalid', path, body)
    assert.equal(({} as { admin?: boolean }).admin, undefined)
    for (const name of ['constructor', 'toString', 'hasOwnProperty']) {
      const answer = await world.post('/v1/reserve', {
        ...reserve,
        cost: 1,
        dry_run: true,
        subject: { [name]: 'x' },
      })
      assert.equal(answer.status, 200, name)
    }
  })

  test('413: more than 1 MiB, and more than 4 MiB in a batch', async () => {
    const mib = 1024 * 1024
    assertProblem(await send(`{"a":"${'x'.repeat(mib)}"}`), 413, 'too_big', '', 'reserve')
    assertProblem(await send(`{"a":"${'x'.repeat(4 * mib)}"}`, {}, '/v1/batch'), 413, 'too_big', '', 'batch')
    assertProblem(
      await send('x'.repeat(mib + 1), { 'content-type': 'application/yaml' }, '/v1/policy/check'),
      413,
      'too_big',
      '',
      'policy',
    )
    assert.equal((await send(`{"operations":[${' '.repeat(3 * mib)}]}`, {}, '/v1/batch')).status, 200)
  })

  test('400: more than 256 operations', async () => {
    const operations = Array.from({ length: 257 }, () => ({
      op: 'release',
      request_id: 'r',
      account: 'acme',
    }))
    assertProblem(await world.post('/v1/batch', { operations }), 400, 'invalid', '/operations', '257')
  })

  test('415: another media type, or none', async () => {
    for (const type of [
      'text/plain',
      'application/x-www-form-urlencoded',
      'multipart/form-data',
      'application/jsonx',
      'nonsense',
    ]) {
      assertProblem(await send(whole, { 'content-type': type }), 415, 'media_type', '/content-type', type)
    }
    assertProblem(await send(whole, { 'content-type': '' }), 415, 'media_type', '/content-type', 'none')
  })

  test('200: JSON with a charset', async () => {
    const body = JSON.stringify({ ...reserve, cost: 1, dry_run: true })
    assert.equal((await send(body, { 'content-type': 'application/json; charset=utf-8' })).status, 200)
  })
})

describe('what the engine could not decide', () => {
  const failing = async (error: unknown) =>
    createWorld({
      storeOf: (now) => memoryStore({ now }),
      policy: POLICY,
      through: (engine) => ({ ...engine, reserve: () => Promise.reject(error) }),
    })

  test('503: overloaded, with the time to wait in body and header', async () => {
    const full = await failing(
      new SluiceError('overloaded', 'Full.', { retryAfterMs: 1200, remedy: 'Try again later.', path: '' }),
    )
    const answer = await full.post('/v1/reserve', reserve)
    assert.deepEqual(
      [answer.status, answer.body.retry_after_ms, answer.headers['retry-after']],
      [503, 1200, '2'],
    )
    await full.close()
  })

  test('500: a defect tells nothing of itself', async () => {
    const broken = await failing(new TypeError('cannot read SECRET of undefined'))
    const answer = await broken.post('/v1/reserve', reserve)
    assertProblem(answer, 500, 'internal', undefined, 'defect')
    assert.ok(!answer.text.includes('SECRET'))
    const { body } = await broken.post('/v1/batch', { operations: [{ op: 'reserve', ...reserve }] })
    assert.deepEqual([body.results[0].status, body.results[0].body.code], [500, 'internal'])
    await broken.close()
  })

  test('anything thrown becomes an error of the list', () => {
    const overflow = (): unknown => {
      try {
        return add(MAX_MICROS, 1)
      } catch (error) {
        return error
      }
    }
    assert.equal(asSluiceError(overflow()).code, 'amount_overflow')
    for (const thrown of [
      undefined,
      null,
      'text',
      5,
      {},
      Object.assign(new Error('x'), { code: 'toString' }),
    ]) {
      assert.equal(asSluiceError(thrown).code, 'internal')
    }
  })
})
