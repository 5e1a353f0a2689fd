export declare const SERVER_HEAP: readonly string[]
