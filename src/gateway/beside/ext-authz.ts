/** `envoy.service.auth.v3.Authorization`: the question in its message, and the verdict in its answer. */
import type { Question } from './gate.ts'
import type { Fields, Turned, Verdict } from './verdict.ts'

/** What is read of the message. */
export interface CheckRequest {
  readonly attributes: {
    readonly request: {
      readonly http: {
        readonly method: string
        /** With its query. */
        readonly path: string
        readonly headers: Readonly<Record<string, string>>
        /** In the place of `headers` where Envoy is told `encode_raw_headers`. */
        readonly header_map: {
          readonly headers: readonly { readonly key: string; readonly raw_value: Buffer }[]
        } | null
      } | null
    } | null
  } | null
}

/** google.rpc.Code */
const OK = 0
const CODES: Readonly<Record<number, number>> = { 400: 3, 401: 16, 403: 7, 429: 8 }
const DENIED = 7
/** HeaderValueOption.HeaderAppendAction: whatever a caller wrote there is gone. */
const OVERWRITE_IF_EXISTS_OR_ADD = 2
const KNOWN = ['x-sluice-account', 'x-sluice-request-id']

export function questionOf({ attributes }: CheckRequest): Question {
  const http = attributes?.request?.http ?? undefined
  return {
    method: http?.method || undefined,
    target: http?.path || undefined,
    field(name) {
      const raw = http?.header_map?.headers.filter(({ key }) => key.toLowerCase() === name) ?? []
      if (raw.length > 0) return raw.map(({ raw_value }) => raw_value.toString('utf8')).join(', ')
      const { headers = {} } = http ?? {}
      return Object.hasOwn(headers, name) ? headers[name] : undefined
    },
  }
}

/** A verdict that is none is answered as it is: nothing was decided. */
export function checkAnswer(verdict: Verdict, keyHeader: string): object | Turned {
  if (verdict.kind === 'undecided') return verdict
  if (verdict.kind === 'passed')
    return {
      status: { code: OK },
      ok_response: {
        headers: options(verdict.known),
        // The caller's key goes no further, nor what it writes into the gateway's own fields.
        headers_to_remove: Object.keys(verdict.known).length === 0 ? KNOWN : [keyHeader],
        response_headers_to_add: options(verdict.fields),
      },
    }
  const { status, code, fields, body } = verdict
  return {
    status: { code: CODES[status] ?? DENIED, message: code },
    denied_response: { status: { code: status }, headers: options(fields), body },
  }
}

const options = (fields: Fields): readonly object[] =>
  Object.entries(fields).map(([key, value]) => ({
    header: { key, value },
    append_action: OVERWRITE_IF_EXISTS_OR_ADD,
  }))
