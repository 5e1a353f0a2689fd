/**
 * One example of every call, told as one story in order. A test plays it on a real engine and holds the answers of
 * `examples.json` to what comes back, so the contract shows nothing that was made up.
 */
import ANSWERS from './examples.json' with { type: 'json' }

export interface Scene {
  /** The call's `operationId`. A call may come more than once: its first scene is its example. */
  readonly id: string
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH'
  readonly url: string
  readonly body?: unknown
  readonly ifMatch?: string
}

/** When the story begins: Monday, 2 March 2026, 09:00 UTC. */
export const STORY_STARTS_AT = Date.UTC(2026, 2, 2, 9)

const POLICY = `features:
  codex.task:
    rate_card:
      - per_million: { input_tokens: 43.75, cached_input_tokens: 4.375, output_tokens: 350 }
plans:
  plus:
    guards:
      - { name: requests, rate: { meter: requests, limit: 60, per: 1m }, by: user }
    waterfall:
      - allowance: included
        by: user
        windows:
          - { name: 5h, limit: "0.05", per: 5h, anchor: first_use }
      - credits: [promo, purchased]
`
const acme = { account: 'acme' }
const who = { subject: { user: 'u1' }, feature: 'codex.task' }
const HOUR = 3_600_000

export const STORY: readonly Scene[] = [
  { id: 'publishPolicy', method: 'PUT', url: '/v1/policy', body: { policy: POLICY }, ifMatch: '"0"' },
  { id: 'checkPolicy', method: 'POST', url: '/v1/policy/check', body: { policy: 'plans: { plus: {} }' } },
  { id: 'readPolicy', method: 'GET', url: '/v1/policy?version=1' },
  { id: 'listPolicyVersions', method: 'GET', url: '/v1/policy/versions?limit=10' },
  {
    id: 'createAccount',
    method: 'POST',
    url: '/v1/accounts',
    body: { id: 'acme', plan: 'plus', time_zone: 'Europe/Berlin' },
  },
  {
    id: 'grant',
    method: 'POST',
    url: '/v1/accounts/acme/grants',
    body: { id: 'pack-1', kind: 'purchased', amount: '100', reason: 'order 7' },
  },
  {
    id: 'reserve',
    method: 'POST',
    url: '/v1/reserve',
    body: {
      request_id: 'r-1',
      ...acme,
      ...who,
      attributes: { model: 'gpt-5.3-codex' },
      estimate: { input_tokens: 900, output_tokens: 80 },
    },
  },
  {
    id: 'extend',
    method: 'POST',
    url: '/v1/extend',
    body: { request_id: 'r-1', ...acme, step: 1, estimate: { input_tokens: 900, output_tokens: 200 } },
  },
  {
    id: 'settle',
    method: 'POST',
    url: '/v1/settle',
    body: { request_id: 'r-1', ...acme, usage: { input_tokens: 900, output_tokens: 150 } },
  },
  {
    id: 'batch',
    method: 'POST',
    url: '/v1/batch',
    body: {
      operations: [
        { op: 'reserve', request_id: 'r-2', ...acme, ...who, cost: '1.5' },
        { op: 'settle', request_id: 'r-0', ...acme, cost: '1' },
      ],
    },
  },
  { id: 'listHolds', method: 'GET', url: '/v1/accounts/acme/holds?limit=10' },
  {
    id: 'release',
    method: 'POST',
    url: '/v1/release',
    body: { request_id: 'r-2', ...acme, reason: 'the model was not available' },
  },
  {
    id: 'record',
    method: 'POST',
    url: '/v1/record',
    body: { request_id: 'r-3', ...acme, ...who, usage: { output_tokens: 1000 }, endpoint: '/v1/responses' },
  },
  {
    id: 'refund',
    method: 'POST',
    url: '/v1/accounts/acme/requests/r-3/refund',
    body: { refund_id: 'f-1', amount: '0.1', reason: 'the answer was cut off' },
  },
  { id: 'explain', method: 'GET', url: '/v1/accounts/acme/requests/r-3' },
  { id: 'explainAnywhere', method: 'GET', url: '/v1/requests/r-2' },
  {
    id: 'patchAccount',
    method: 'PATCH',
    url: '/v1/accounts/acme',
    body: { metadata: { contact: 'ops@acme.example' } },
    ifMatch: '"1"',
  },
  {
    id: 'overrideLimits',
    method: 'PUT',
    url: '/v1/accounts/acme/overrides',
    body: {
      subject: { user: 'u1' },
      overrides: [{ name: 'included/5h', limit: '2', until_at: STORY_STARTS_AT + 24 * HOUR }],
      reason: 'launch week',
    },
    ifMatch: '"2"',
  },
  { id: 'readAccount', method: 'GET', url: '/v1/accounts/acme?user=u1' },
  { id: 'listAccounts', method: 'GET', url: '/v1/accounts?plan=plus&limit=10' },
  { id: 'listGrants', method: 'GET', url: '/v1/accounts/acme/grants?limit=10' },
  {
    id: 'revokeGrant',
    method: 'POST',
    url: '/v1/accounts/acme/grants/pack-1/revoke',
    body: { reason: 'order 7 was cancelled' },
  },
  { id: 'listSubjects', method: 'GET', url: '/v1/accounts/acme/subjects?limit=10' },
  {
    id: 'usage',
    method: 'GET',
    url: `/v1/accounts/acme/usage?from=${STORY_STARTS_AT}&to=${STORY_STARTS_AT + HOUR}&bucket=hour&group_by=feature,subject.user`,
  },
  {
    id: 'listEntries',
    method: 'GET',
    url: '/v1/accounts/acme/entries?kind=usage,charge&order=newest&limit=2',
  },
  { id: 'journal', method: 'GET', url: '/v1/entries?limit=2' },
  {
    id: 'erase',
    method: 'POST',
    url: '/v1/accounts/acme/erase',
    body: { dimension: 'user', value: 'u1' },
  },
  { id: 'repairAccount', method: 'POST', url: '/v1/accounts/acme/repair' },
  {
    id: 'createKey',
    method: 'POST',
    url: '/v1/keys',
    body: { id: 'gateway', role: 'meter', account: 'acme' },
  },
  { id: 'listKeys', method: 'GET', url: '/v1/keys?limit=10' },
  { id: 'revokeKey', method: 'POST', url: '/v1/keys/gateway/revoke' },
  { id: 'acceptClock', method: 'POST', url: '/v1/clock/accept' },
  { id: 'setClock', method: 'PUT', url: '/v1/test-clock', body: { now: STORY_STARTS_AT + HOUR } },
  { id: 'live', method: 'GET', url: '/healthz' },
  { id: 'ready', method: 'GET', url: '/readyz' },
]

export interface Example extends Scene {
  readonly answer: unknown
}
const answers: Readonly<Record<string, unknown>> = ANSWERS

/** The example of each call, by `operationId`. Metrics and the contract itself have none: they show themselves; a stream has no end. */
export const EXAMPLES: ReadonlyMap<string, Example> = new Map(
  STORY.map((scene) => [scene.id, { ...scene, answer: answers[scene.id] }]),
)
