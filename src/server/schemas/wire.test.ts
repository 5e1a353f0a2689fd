// The schemas say what `wire.ts` says. Types hold it, so a difference is found by `tsc`, before anything runs.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Static } from 'typebox'
import type { Engine } from '../../engine.ts'
import type * as wire from '../../wire.ts'
import * as answers from './answers.ts'
import * as requests from './requests.ts'
import type { ENTRY_KINDS, GRANT_KINDS, ROLES, STATUSES } from './shapes.ts'

/** The same type, `readonly` aside, which JSON does not have. */
type Same<A, B> = [Plain<A>] extends [Plain<B>] ? ([Plain<B>] extends [Plain<A>] ? true : false) : false
type Plain<T> = T extends object ? { -readonly [K in keyof T]: Plain<T[K]> } : T

/** Every schema beside its wire type; each line must be `true`. */
type Held = {
  reserve: Same<Static<typeof requests.ReserveRequest>, wire.ReserveRequest>
  extend: Same<Static<typeof requests.ExtendRequest>, wire.ExtendRequest>
  settle: Same<Static<typeof requests.SettleRequest>, wire.SettleRequest>
  release: Same<Static<typeof requests.ReleaseRequest>, wire.ReleaseRequest>
  record: Same<Static<typeof requests.RecordRequest>, wire.RecordRequest>
  operation: Same<
    {
      [K in keyof typeof requests.OPERATIONS]: Static<(typeof requests.OPERATIONS)[K]>
    }[keyof typeof requests.OPERATIONS],
    wire.Operation
  >
  refund: Same<Static<typeof requests.RefundRequest>, wire.RefundRequest>
  account: Same<Static<typeof requests.AccountRequest>, wire.AccountRequest>
  patch: Same<Static<typeof requests.AccountPatch>, wire.AccountPatch>
  overrides: Same<Static<typeof requests.OverridesRequest>, wire.OverridesRequest>
  grant: Same<Static<typeof requests.GrantRequest>, wire.GrantRequest>
  revoke: Same<Static<typeof requests.RevokeRequest>, wire.RevokeRequest>
  key: Same<Static<typeof requests.KeyRequest>, wire.KeyRequest>
  decided: Same<Static<typeof answers.DecisionAnswer>, wire.DecisionAnswer>
  charged: Same<Static<typeof answers.ChargeAnswer>, wire.ChargeAnswer>
  released: Same<Static<typeof answers.ReleaseAnswer>, wire.ReleaseAnswer>
  refunded: Same<Static<typeof answers.RefundAnswer>, wire.RefundAnswer>
  accountView: Same<Static<typeof answers.AccountView>, wire.AccountView>
  grantView: Same<Static<typeof answers.GrantView>, wire.GrantView>
  granted: Same<Static<typeof answers.GrantAnswer>, wire.GrantAnswer>
  erased: Same<Static<typeof answers.EraseAnswer>, Awaited<ReturnType<Engine['erase']>>>
  hold: Same<Static<typeof answers.HoldView>, wire.HoldView>
  subject: Same<Static<typeof answers.SubjectView>, wire.SubjectView>
  entry: Same<Static<typeof answers.EntryView>, wire.EntryView>
  explanation: Same<Static<typeof answers.Explanation>, wire.Explanation>
  shown: Same<Static<typeof answers.AccountShown>, wire.AccountShown>
  added: Same<Static<typeof answers.EntryAdded>, wire.EntryAdded>
  noted: Same<Static<typeof answers.RefusalNoted>, wire.RefusalNoted>
  usage: Same<Static<typeof answers.UsageRow>, wire.UsageRow>
  version: Same<Static<typeof answers.PolicyVersionView>, wire.PolicyVersionView>
  policy: Same<Static<typeof answers.PolicyView>, wire.PolicyView>
  check: Same<Static<typeof answers.PolicyCheck>, wire.PolicyCheck>
  keyView: Same<Static<typeof answers.KeyView>, wire.KeyView>
  keyMade: Same<Static<typeof answers.KeyMade>, wire.KeyMade>
  problem: Same<Static<typeof answers.Problem>, wire.Problem>
  status: Same<(typeof STATUSES)[number], wire.AccountStatus>
  role: Same<(typeof ROLES)[number], wire.Role>
  kind: Same<(typeof GRANT_KINDS)[number], wire.GrantKind>
  entryKind: Same<(typeof ENTRY_KINDS)[number], wire.EntryView['kind']>
}
type Differs = { [K in keyof Held]: Held[K] extends true ? never : K }[keyof Held]
/** `true`, or the names of those that differ: then this line does not compile. */
const held: [Differs] extends [never] ? true : Differs = true

test('each schema and its wire type are assignable both ways', () => assert.equal(held, true))

test('every schema that is exported under a name is registered under it, once', () => {
  const nameOf = (value: unknown) => (value as { $id?: string }).$id
  const registered = [...requests.REQUESTS, ...answers.ANSWERS].map(nameOf)
  assert.equal(new Set(registered).size, registered.length)
  const exported = [...Object.values(requests), ...Object.values(answers)].map(nameOf)
  for (const name of exported) if (name !== undefined) assert.ok(registered.includes(name), name)
})

test('every object that is taken refuses what it does not know', () => {
  for (const schema of requests.REQUESTS)
    assert.equal((schema as { additionalProperties?: unknown }).additionalProperties, false)
})
