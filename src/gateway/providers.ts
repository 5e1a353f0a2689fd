/** All providers by name. */
import type { Provider } from './provider.ts'
import { openai } from './providers/openai.ts'

export const PROVIDERS = { openai } as const satisfies Readonly<Record<string, Provider>>
