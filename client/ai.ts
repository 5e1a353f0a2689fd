/** The AI SDK (package `ai`): a middleware for language models. Each call of a model is one request, those of tool loops too. */
import { type AccessOptions, AccessRefused, type AccessRequest } from './access.ts'
import type { Client } from './client.ts'
import type { Lease } from './lease.ts'
import { type Opened, open } from './open.ts'
import { estimateTokens, reportTokens, type Tokens, tokensOfText, tokensTold } from './tokens.ts'
import { watched } from './watched.ts'

export { estimateTokens, type Tokens }

/** What a call used, as the SDK tells it. As much of its types as is used here stands here, so that no version of it is needed. */
export interface ModelUsage {
  readonly inputTokens: { readonly total: number | undefined; readonly cacheRead: number | undefined }
  readonly outputTokens: { readonly total: number | undefined }
}
/** What a model is called with. */
export interface ModelParams {
  readonly prompt: unknown
  readonly maxOutputTokens?: number | undefined
  readonly abortSignal?: AbortSignal | undefined
  readonly providerOptions?: Readonly<Record<string, Readonly<Record<string, unknown>>>> | undefined
}
/** A part of what a model streams. */
export interface ModelPart {
  readonly type: string
  readonly delta?: string
  readonly usage?: unknown
}

/** Which model it is. */
export interface ModelName {
  readonly provider: string
  readonly modelId: string
}

/** A call of a model, to be mapped to what it needs. */
export interface ModelCall extends ModelName {
  readonly params: ModelParams
}

/** How calls of models are metered; the rest is as `access` takes it. */
export interface MeteredModelOptions extends AccessOptions {
  readonly client: Client
  /** Whom the call is for and what it needs. Without an estimate: the input by length, the output by its bound. */
  request(call: ModelCall): AccessRequest | Promise<AccessRequest>
}

/** A middleware as version 3 of the SDK's specification has it. */
export interface ModelMiddleware {
  readonly specificationVersion: 'v3'
  wrapGenerate<P extends ModelParams, R extends { readonly usage: ModelUsage }>(call: {
    readonly model: ModelName & { doGenerate(params: P): PromiseLike<R> }
    readonly params: P
  }): Promise<R>
  wrapStream<P extends ModelParams, R extends { readonly stream: ReadableStream<ModelPart> }>(call: {
    readonly model: ModelName & { doStream(params: P): PromiseLike<R> }
    readonly params: P
  }): Promise<R>
}

/**
 * `wrapLanguageModel({ model, middleware: sluice({ client, request }) })`. A refusal throws `AccessRefused`, which the SDK does not
 * retry. A stream that is left is charged with what it brought until then, its tokens counted by length.
 */
export function sluice(options: MeteredModelOptions): ModelMiddleware {
  async function begin(call: ModelCall) {
    const asked = await options.request(call)
    const hasAmount = asked.estimate !== undefined || asked.cost !== undefined
    const estimate = estimateTokens(call.params.prompt, call.params.maxOutputTokens)
    const request = hasAmount ? asked : { ...asked, estimate }
    const { abortSignal } = call.params
    const signals = [options.signal, abortSignal].filter((one) => one !== undefined)
    const opened = await open(options.client, request, {
      ...options,
      ...(signals.length > 0 && { signal: AbortSignal.any(signals) }),
    })
    if (!opened.ok) throw new AccessRefused(opened)
    return { ...opened, input: estimate.input_tokens }
  }
  const withSignal = <P extends ModelParams>(params: P, lease: Lease): P => ({
    ...params,
    abortSignal: lease.signal,
  })

  return {
    specificationVersion: 'v3',

    async wrapGenerate<P extends ModelParams, R extends { readonly usage: ModelUsage }>({
      model,
      params,
    }: {
      readonly model: ModelName & { doGenerate(params: P): PromiseLike<R> }
      readonly params: P
    }): Promise<R> {
      const { lease, end } = await begin({ ...named(model), params })
      try {
        const result = await model.doGenerate(withSignal(params, lease))
        reportTokens(lease, tokensOf(result.usage))
        await end('done')
        return result
      } catch (error) {
        await end('failed')
        throw error
      }
    },

    async wrapStream<P extends ModelParams, R extends { readonly stream: ReadableStream<ModelPart> }>({
      model,
      params,
    }: {
      readonly model: ModelName & { doStream(params: P): PromiseLike<R> }
      readonly params: P
    }): Promise<R> {
      const opened = await begin({ ...named(model), params })
      try {
        const result = await model.doStream(withSignal(params, opened.lease))
        return { ...result, stream: meteredParts(result.stream, opened, opened.input) }
      } catch (error) {
        await opened.end('failed')
        throw error
      }
    },
  }
}

const named = ({ provider, modelId }: ModelName): ModelName => ({ provider, modelId })

function meteredParts<P extends ModelPart>(
  stream: ReadableStream<P>,
  { lease, end }: Opened,
  input: number,
): ReadableStream<P> {
  let characters = 0
  let isWhole = false
  function see({ type, delta, usage }: ModelPart): void {
    if (typeof delta === 'string') {
      characters += delta.length
      lease.report({ input_tokens: input, output_tokens: tokensOfText(characters) }, { estimated: true })
    } else if (type === 'finish') {
      reportTokens(lease, tokensOf(usage as ModelUsage | undefined))
      isWhole = true
    }
  }
  return watched(stream, see, (how) => end(how === 'done' && !isWhole ? 'failed' : how))
}

const tokensOf = (usage: ModelUsage | undefined): Partial<Tokens> =>
  tokensTold({
    input: usage?.inputTokens?.total,
    cached: usage?.inputTokens?.cacheRead,
    output: usage?.outputTokens?.total,
  })
