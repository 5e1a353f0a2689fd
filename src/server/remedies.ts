/**
 * What to do about each error where nothing nearer is known, and where it most often lies. Every problem has a remedy: its
 * own, or this one. The reference page shows these.
 */
import type { ErrorCode } from '../errors.ts'

/** `[path, remedy]`, and the time to wait where the error tells one. */
export type Told = readonly [path: string, remedy: string, retryAfterMs?: number]

export const REMEDIES: Readonly<Record<ErrorCode, Told>> = {
  invalid: [
    '/estimate/input_tokens',
    'Send what `remedy` says at `path`: a JSON pointer into body, query or path, or a header’s name.',
  ],
  subject_missing: ['/subject/user', 'Name the dimension in `subject`: the plan counts by it.'],
  price_missing: [
    '/attributes',
    'Name attributes or quantities that the rate card prices, or add a line to it.',
  ],
  estimate_missing: ['/estimate', 'Send `estimate` or `cost`, or give the feature a default estimate.'],
  too_old: [
    '/started_at',
    'Leave the instant out: what is older than the horizon can no longer be told from a repeat.',
  ],
  amount_overflow: ['/cost', 'Use smaller amounts: a sum may reach 9007199254.740991 CU.'],
  unauthorized: [
    '/authorization',
    'Send the header `Authorization: Bearer KEY` with a key that is valid now.',
  ],
  forbidden: [
    '/account',
    'Use a key of the right role, and name only the account and subject that it is bound to.',
  ],
  not_found: ['', 'Check method and path: /openapi.json has all calls.'],
  account_unknown: ['/account', 'Make the account first, or give the policy a default_plan.'],
  plan_unknown: ['/plan', 'Name a plan of the policy in force.'],
  feature_unknown: ['/feature', 'Name a feature of the policy in force.'],
  request_unknown: ['/request_id', 'Check the id; a settle of an unknown request must name its feature.'],
  grant_unknown: ['/grant', 'Check the id: the list of grants has all.'],
  key_unknown: ['/id', 'Check the id: the list of keys has all.'],
  conflict: ['/request_id', 'Take `first` for the answer, or choose another id for another meaning.'],
  step_out_of_order: ['/step', 'Send the step after the last that was answered.'],
  too_many: ['/request_id', 'Close or revoke what is no longer needed.'],
  precondition_failed: ['/if-match', 'Read it again, and send its ETag as it came.'],
  precondition_required: ['/if-match', 'Send the ETag of the policy you have read, or "0" for the first.'],
  too_big: ['', 'Send at most 1 MiB, or 4 MiB to /v1/batch.'],
  media_type: ['/content-type', 'Send one JSON value in UTF-8, with content-type application/json.'],
  policy_missing: ['', 'Publish a policy: PUT /v1/policy.'],
  policy_invalid: [
    '/plans/plus/waterfall/0',
    'Correct what `complaints` names; POST /v1/policy/check tells the same.',
  ],
  overloaded: ['', 'Try again after `retry_after_ms`, and then less often.', 250],
  unavailable: ['', 'Try again later; look at the store.', 1000],
  clock_suspect: [
    '',
    'Wait until the clock is right again, or accept it as it is: POST /v1/clock/accept.',
    1000,
  ],
  clock_behind: [
    '/account',
    'Wait until the clock has caught up, or repair the account: POST /v1/accounts/{id}/repair.',
  ],
  format_newer: ['', 'Run the version that wrote the state, or a newer one.'],
  closing: ['', 'Try another node, or this one later.', 1000],
  internal: ['', 'Try again; if it stays, give the operator the id in the header x-request-id.'],
}
