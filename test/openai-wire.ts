/** The wire format of OpenAI as an upstream of a test speaks it, held to the types of the official package. */
import type { ServerResponse } from 'node:http'
import type { ChatCompletion, ChatCompletionChunk } from 'openai/resources/chat/completions'
import type { Completion, CompletionUsage } from 'openai/resources/completions'
import type { CreateEmbeddingResponse } from 'openai/resources/embeddings'
import type { Response, ResponseStreamEvent } from 'openai/resources/responses/responses'
import { events, type Got, say } from './gateway.ts'

/** 4 of input, 2 from the cache and 3 of output. */
export const TOLD: CompletionUsage = {
  prompt_tokens: 6,
  completion_tokens: 3,
  total_tokens: 9,
  prompt_tokens_details: { cached_tokens: 2 },
}
export const TOLD_QUANTITIES = { cached_input_tokens: '2', input_tokens: '4', output_tokens: '3' }

const head = ({ body }: Got) => ({ id: 'c1', created: 1, model: String(body.model) })

export function chatAnswer(got: Got, message: object = {}): ChatCompletion {
  const n = Number(got.body.n ?? 1)
  return {
    ...head(got),
    object: 'chat.completion',
    choices: Array.from({ length: n }, (_, index) => ({
      index,
      logprobs: null,
      finish_reason: 'stop',
      message: { role: 'assistant', content: 'one two three', refusal: null, ...message },
    })),
    usage: TOLD,
  }
}

/** A stream whose pieces a test says; `end` tells usage where the call asked for it. */
export function chatStream(got: Got, response: ServerResponse) {
  const stream = events(response)
  const tell = (more: Pick<ChatCompletionChunk, 'choices'> & Partial<ChatCompletionChunk>): void =>
    stream.tell({ ...head(got), object: 'chat.completion.chunk', ...more } satisfies ChatCompletionChunk)
  return {
    ...stream,
    tell,
    piece(delta: ChatCompletionChunk.Choice.Delta, index = 0): void {
      tell({ choices: [{ index, delta, finish_reason: null }] })
    },
    finish(why: ChatCompletionChunk.Choice['finish_reason'], usage = TOLD): void {
      tell({ choices: [{ index: 0, delta: {}, finish_reason: why }] })
      const asks = got.body.stream_options as { include_usage?: boolean } | undefined
      if (asks?.include_usage === true) tell({ choices: [], usage })
      stream.tell('[DONE]')
      stream.end()
    },
  }
}

export function completionAnswer(got: Got): Completion {
  return {
    ...head(got),
    object: 'text_completion',
    choices: [{ index: 0, text: 'one two three', logprobs: null, finish_reason: 'stop' }],
    usage: TOLD,
  }
}

export const embeddingAnswer = ({ body }: Got): CreateEmbeddingResponse => ({
  object: 'list',
  model: String(body.model),
  data: [{ object: 'embedding', index: 0, embedding: [0.5, -0.25] }],
  usage: { prompt_tokens: 6, total_tokens: 6 },
})

export function responseAnswer(
  { body }: Got,
  text: string,
  status: NonNullable<Response['status']>,
): Response {
  return {
    ...{ id: 'r1', object: 'response', created_at: 1, status, model: String(body.model) },
    ...{
      error: null,
      incomplete_details: null,
      instructions: null,
      metadata: null,
      temperature: 1,
      top_p: 1,
    },
    ...{ parallel_tool_calls: true, tool_choice: 'auto', tools: [], output_text: text },
    output: [
      {
        ...{ type: 'message', id: 'm1', role: 'assistant', status: 'completed' },
        content: [{ type: 'output_text', text, annotations: [] }],
      },
    ],
    ...(status === 'completed' && {
      usage: {
        input_tokens: 6,
        input_tokens_details: { cached_tokens: 2, cache_write_tokens: 0 },
        output_tokens: 3,
        output_tokens_details: { reasoning_tokens: 0 },
        total_tokens: 9,
      },
    }),
  }
}

export function responseStream(got: Got, response: ServerResponse) {
  const stream = events(response)
  let sequence_number = 0
  const tell = (event: { type: ResponseStreamEvent['type'] } & Record<string, unknown>): void =>
    stream.tell({ ...event, sequence_number: sequence_number++ }, event.type)
  const place = { item_id: 'm1', output_index: 0 }
  const part = { type: 'output_text', text: '', annotations: [] }
  tell({
    type: 'response.created',
    response: { ...responseAnswer(got, '', 'in_progress'), output: [] },
  })
  tell({
    ...{ type: 'response.output_item.added', output_index: 0 },
    item: { type: 'message', id: 'm1', role: 'assistant', status: 'in_progress', content: [] },
  })
  tell({ type: 'response.content_part.added', ...place, content_index: 0, part })
  return {
    piece(delta: string): void {
      tell({ type: 'response.output_text.delta', ...place, content_index: 0, delta, logprobs: [] })
    },
    finish(text: string): void {
      const done = responseAnswer(got, text, 'completed')
      tell({ type: 'response.output_text.done', ...place, content_index: 0, text, logprobs: [] })
      tell({ type: 'response.content_part.done', ...place, content_index: 0, part: { ...part, text } })
      tell({ type: 'response.output_item.done', output_index: 0, item: done.output[0] })
      tell({ type: 'response.completed', response: done })
      stream.end()
    },
  }
}

/** What an upstream usually answers. */
export function speakOpenai(got: Got, response: ServerResponse): void {
  const isStream = got.body.stream === true
  const words = ['one ', 'two ', 'three']
  switch (`${got.method} ${got.path.split('?')[0]}`) {
    case 'POST /v1/chat/completions': {
      if (!isStream) return say(response, chatAnswer(got))
      const stream = chatStream(got, response)
      for (const content of words) stream.piece({ content })
      return stream.finish('stop')
    }
    case 'POST /v1/completions': {
      if (!isStream) return say(response, completionAnswer(got))
      const stream = events(response)
      for (const text of words)
        stream.tell({
          ...completionAnswer(got),
          usage: undefined,
          choices: [{ index: 0, text, logprobs: null, finish_reason: null }],
        })
      stream.tell({ ...completionAnswer(got), choices: [], usage: TOLD })
      stream.tell('[DONE]')
      return stream.end()
    }
    case 'POST /v1/responses': {
      if (!isStream) return say(response, responseAnswer(got, 'one two three', 'completed'))
      const stream = responseStream(got, response)
      for (const word of words) stream.piece(word)
      return stream.finish(words.join(''))
    }
    case 'POST /v1/embeddings':
      return say(response, embeddingAnswer(got))
    case 'GET /v1/models':
      return say(response, {
        object: 'list',
        data: [{ id: 'm', object: 'model', created: 1, owned_by: 'x' }],
      })
    default:
      return say(response, { error: { message: `no ${got.path}`, type: 'invalid_request_error' } }, 404)
  }
}
