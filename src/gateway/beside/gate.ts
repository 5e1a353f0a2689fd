/**
 * May this request of another proxy go on? Such a proxy asks once and never tells how the request ended, so what its rule says
 * is charged at once; where the rule has `hold`, it is held until what stands behind the proxy reports what was used.
 */
import type { Engine } from '../../engine.ts'
import { bearer, type Key, type Keyring } from '../../keyring.ts'
import type { ReserveRequest, Subject } from '../../wire.ts'
import type { Calls } from '../calls.ts'
import type { ForwardAuthConfig, ForwardRule } from './config.ts'
import { pathOf } from './path.ts'
import { passed, refusal, thrown, turned, UNASKED, type Verdict, verdictOf } from './verdict.ts'

/** The account that a key stands for, and whom in it. Throws `forbidden` where it stands for none. */
export type Payer = (key: Key) => { readonly account: string; readonly subject: Subject | undefined }

export interface GateOptions {
  readonly engine: Engine
  readonly keyring: Keyring
  readonly calls: Calls
  readonly payer: Payer
  readonly config: ForwardAuthConfig
  readonly onFault: (error: unknown) => void
}

export interface Question {
  readonly method: string | undefined
  /** The request's target as it came to the proxy: its path, and its query. */
  readonly target: string | undefined
  field(name: string): string | undefined
}

export interface Gate {
  readonly keyHeader: string
  /** Never rejects: what goes wrong is an answer as well. */
  ask(question: Question, gone?: AbortSignal): Promise<Verdict>
}

export function createGate({ engine, keyring, calls, payer, config, onFault }: GateOptions): Gate {
  async function ask({ method, target, field }: Question, gone?: AbortSignal): Promise<Verdict> {
    if (method === undefined || target === undefined)
      return refusal(400, 'invalid', 'the proxy tells neither method nor target of the request')
    const path = pathOf(target)
    if (path === undefined) return refusal(400, 'invalid', 'the path can be read in more than one way')
    const rule = config.rules.find((one) => fits(one, method, path))
    if (rule === undefined)
      return config.otherwise === 'pass' ? UNASKED : refusal(403, 'no_rule', 'no rule fits this request')
    const key = await keyring.key(secretIn(config.keyHeader, field))
    const { account, subject } = payer(key)
    const caller = { actor: key.id, subject: key.subject }
    const id = config.requestIdHeader === undefined ? undefined : field(config.requestIdHeader)
    const request: ReserveRequest = {
      request_id: id || crypto.randomUUID(),
      account,
      ...(subject !== undefined && { subject }),
      feature: rule.feature,
      attributes: rule.attributes,
      ...(rule.cost !== undefined && { cost: rule.cost }),
      ...(rule.quantities !== undefined && { estimate: rule.quantities }),
    }
    // Whoever hangs up before the answer, and cannot ask again under the same id, pays nothing.
    const isOver = () => gone?.aborted === true && !id
    if (rule.holdMs !== undefined) {
      const decision = await engine.reserve({ ...request, ttl_ms: rule.holdMs }, caller)
      if (isOver()) await engine.release({ account, request_id: request.request_id }, caller)
      return verdictOf(decision, account)
    }
    const charge = () => {
      if (isOver()) throw gone?.reason
    }
    const answer = await calls.of(caller).access(request, charge, { endpoint: 'forward_auth' })
    return answer.ok ? passed(account, answer.request_id, answer.decision) : turned(answer, account)
  }

  return {
    keyHeader: config.keyHeader,
    async ask(question, gone) {
      try {
        return await ask(question, gone)
      } catch (error) {
        const verdict = thrown(error)
        if (verdict.code === 'internal' && gone?.aborted !== true) onFault(error)
        return verdict
      }
    },
  }
}

const fits = ({ methods, path }: ForwardRule, method: string, asked: string): boolean =>
  path.test(asked) && (methods === undefined || methods.includes(method))

function secretIn(header: string, field: Question['field']): string {
  const given = field(header)
  return bearer(header === 'authorization' || given === undefined ? given : `Bearer ${given}`)
}
